"""The lifespan of a Starlette application."""

from starlette.applications import Starlette

from pgchannels import MessageLayer
from pgchannels.starlette import lifespan
from tests.support.waiting import within


async def test_layer_is_open_while_the_application_runs(database_url: str) -> None:
    layer = MessageLayer(database_url)
    application = Starlette(lifespan=lifespan(layer))
    async with application.router.lifespan_context(application), layer.subscribe("room") as subscription:
        await layer.publish("room", 1)
        assert (await within(anext(subscription))).payload == 1
