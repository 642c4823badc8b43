"""Dependencies of a FastAPI application: who may listen to what, with real uvicorn."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.routing import Mount
from websockets.exceptions import ConnectionClosed

from pgchannels import ConfigurationError, InvalidName, MessageLayer, Position
from pgchannels.fastapi import LayerDep, SubscribeTo, layer_of
from pgchannels.starlette import lifespan
from tests.support.programs import LIMIT_SECONDS
from tests.support.sites import Site, serving

MAIN: Final = """
import os
import time
from typing import Annotated
from fastapi import Depends, FastAPI, HTTPException, Request, Response, WebSocket
from starlette.requests import HTTPConnection
from pgchannels import MessageLayer, Subscription
from pgchannels.fastapi import LayerDep, SubscribeTo
from pgchannels.starlette import exception_handlers, lifespan, websocket_messages
from pgchannels.starlette.events import event_source

layer = MessageLayer(os.environ["PGCHANNELS_URL"])
app = FastAPI(lifespan=lifespan(layer), exception_handlers=exception_handlers)

def by_thread(connection: HTTPConnection, topic: str) -> bool:
    time.sleep(0)
    return topic == f"rooms.{connection.query_params.get('may')}"

async def by_loop(connection: HTTPConnection, topic: str) -> bool:
    return by_thread(connection, topic) or topic == "public"

def not_quite(connection: HTTPConnection, topic: str) -> bool:
    return "no"  # a mistake that must not let anybody in

def raising(connection: HTTPConnection, topic: str) -> bool:
    raise HTTPException(401)

Room = Annotated[Subscription, Depends(SubscribeTo("rooms.{room}", allow=by_thread))]
Both = Annotated[Subscription, Depends(SubscribeTo("rooms.{room}", "public", allow=by_loop))]
Nothing = Annotated[Subscription, Depends(SubscribeTo("rooms.{room}", allow=not_quite))]
Mistaken = Annotated[Subscription, Depends(SubscribeTo("rooms.{no_such}"))]

@app.post("/{topic}")
async def say(topic: str, text: str, layer: LayerDep) -> str:
    return str(await layer.publish(topic, {"text": text}))

@app.get("/rooms/{room}")
async def events(request: Request, subscription: Room) -> Response:
    return event_source(request, subscription)

@app.websocket("/rooms/{room}")
async def listen(websocket: WebSocket, subscription: Room) -> None:
    await websocket_messages(websocket, subscription)

@app.get("/both/{room}")
async def both(request: Request, subscription: Both) -> Response:
    return event_source(request, subscription)

@app.get("/nothing/{room}")
async def nothing(request: Request, subscription: Nothing) -> Response:
    return event_source(request, subscription)

@app.get("/mistaken/{room}")
async def mistaken(subscription: Mistaken) -> None: ...

@app.get("/raising/{room}")
async def own(subscription: Annotated[Subscription, Depends(SubscribeTo("a", allow=raising))]) -> None: ...
"""


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    (tmp_path / "main.py").write_text(MAIN)
    with serving(tmp_path, module="observed", PGCHANNELS_URL=database_url) as site:
        yield site


def test_who_is_allowed_listens_and_resumes(site: Site) -> None:
    with site.events("/rooms/lobby?may=lobby") as events:
        events.block()
        site.post("/rooms.lobby?text=one")
        assert events.payload() == {"text": "one"}
    site.post("/rooms.lobby?text=two")
    with site.events("/rooms/lobby?may=lobby", **{"Last-Event-ID": events.last_id}) as events:
        assert events.payload() == {"text": "two"}
    with site.connect(f"/rooms/lobby?may=lobby&since={events.last_id}") as client:
        site.post("/rooms.lobby?text=three")
        assert json.loads(client.recv(LIMIT_SECONDS))["payload"] == {"text": "three"}
    site.stop()


def test_who_is_not_allowed_is_told_so_and_gets_nothing(site: Site) -> None:
    for path, status in (
        ("/rooms/lobby", 403),
        ("/rooms/lobby?may=attic", 403),
        ("/nothing/lobby", 403),
        ("/raising/lobby", 401),
        ("/rooms/a%20b?may=a%20b", 422),
        ("/rooms/lobby?may=lobby&since=yesterday", 422),
    ):
        with site.events(path) as events:
            assert events.answer.status == status, path
    with site.connect("/rooms/lobby?may=attic") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(LIMIT_SECONDS)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "you may not listen to this")
    assert site.state()["subscriptions"] == 0
    site.stop()


def test_every_topic_must_be_allowed(site: Site) -> None:
    with site.events("/both/lobby?may=lobby") as events:
        events.block()
        site.post("/public?text=one")
        assert events.payload() == {"text": "one"}
    with site.events("/both/lobby?may=public") as events:
        assert events.answer.status == 403


def test_topic_that_the_path_does_not_fill_is_named(site: Site) -> None:
    with site.events("/mistaken/lobby") as events:
        assert events.answer.status == 500
    site.program.line("the topic 'rooms.{no_such}' needs what the path does not name: that has ['room']")


async def test_application_without_a_layer_says_so_and_a_test_can_give_it_one(database_url: str) -> None:
    app = FastAPI()

    @app.post("/")
    def say(layer: LayerDep) -> str:
        return str(layer.sync.publish("room", 1))

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        with pytest.raises(ConfigurationError, match="the application has no layer"):
            await client.post("/")
        app.dependency_overrides[layer_of] = lambda: MessageLayer(database_url)
        assert Position.parse((await client.post("/")).json())


async def test_mounted_applications_have_the_layer_too(database_url: str) -> None:
    mounted, app = FastAPI(), FastAPI(lifespan=lifespan(layer := MessageLayer(database_url)))
    app.mount("/mounted", FastAPI(routes=[Mount("/again", mounted)]))

    @mounted.post("/")
    async def say(layer: LayerDep) -> str:
        return str(await layer.publish("room", 1))

    transport = ASGITransport(app)
    async with (
        AsyncClient(transport=transport, base_url="http://test") as client,
        app.router.lifespan_context(app),
    ):
        await client.post("/mounted/again/")
        assert [message.payload for message in await layer.history("room")] == [1]


@pytest.mark.parametrize(
    "topic", [5, "", "rooms.{", "rooms.{}", "rooms.{0}", "rooms.{room!r}", "rooms.{room:5}", "a b"]
)
def test_impossible_topic_is_refused_where_the_dependency_is_made(topic: Any) -> None:
    with pytest.raises((ConfigurationError, InvalidName), match="topic"):
        SubscribeTo(topic)


def test_impossible_dependencies_are_refused_where_they_are_made() -> None:
    with pytest.raises(ConfigurationError, match="at least one topic"):
        SubscribeTo()
    with pytest.raises(ConfigurationError, match="allow must be a function, or None"):
        SubscribeTo("room", allow=5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="capacity"):
        SubscribeTo("room", capacity=0)
    with pytest.raises(ConfigurationError, match="when_full"):
        SubscribeTo("room", when_full="never")  # type: ignore[arg-type]
