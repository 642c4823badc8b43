"""`open` and `close`, cancelled at every step."""

import asyncio

import asyncpg
import pytest

from pgchannels import LayerClosed, MessageLayer
from tests.support.connections import connections_to_this_database, has_connections
from tests.support.waiting import until, within

from .steps import attempts


async def test_cancelled_opening_leaves_nothing_open(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = MessageLayer(database_url)

    async def open_(_: int) -> None:
        await layer.open()
        is_open.set()

    async def close() -> None:
        if is_open.is_set():
            await layer.close()
        is_open.clear()
        await until(lambda: has_connections(connection, 0))

    is_open = asyncio.Event()
    async for _ in attempts(open_, every=3, clean_up=close):
        pass
    async with layer:
        await layer.publish("room", "works")


async def test_opening_that_others_wait_for_is_not_cancelled_with_the_first_of_them(database_url: str) -> None:
    layer = MessageLayer(database_url)

    async def open_with_another(_: int) -> None:
        others.append(asyncio.create_task(layer.open()))
        await layer.open()

    async def close() -> None:
        await asyncio.gather(*others)
        others.clear()
        await layer.close()

    others: list[asyncio.Task[None]] = []
    async for _ in attempts(open_with_another, every=7, clean_up=close):
        pass


async def test_cancelled_closing_goes_on(database_url: str, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    layer = MessageLayer(database_url)

    async def close(_: int) -> None:
        has_begun.set()
        await layer.close()

    async def require_closed() -> None:
        if not has_begun.is_set():
            await layer.close()
        ends = await within(asyncio.gather(*waiting, return_exceptions=True))
        assert [type(end) for end in ends] == [LayerClosed, LayerClosed]
        await until(lambda: has_connections(connection, 0))

    await layer.open()
    waiting, has_begun = await begin_to_wait(layer), asyncio.Event()
    async for _ in attempts(close, every=5, clean_up=require_closed):
        await layer.open()
        waiting = await begin_to_wait(layer)
        has_begun.clear()
    await layer.close()
    await asyncio.gather(*waiting, return_exceptions=True)


async def begin_to_wait(layer: MessageLayer) -> "list[asyncio.Task[object]]":
    """Receivers of a queue and of a channel, and a message that was sent."""
    await layer.publish("room", 1)
    return [asyncio.create_task(layer.receive(channel)) for channel in ("jobs", await layer.new_channel())]


async def test_layer_that_is_closed_while_it_opens_is_closed(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = MessageLayer(database_url)
    opening = asyncio.create_task(layer.open())
    await until(lambda: has_any_connection(connection))
    await layer.close()
    with pytest.raises(LayerClosed, match="closed while it was opened"):
        await opening
    await until(lambda: has_connections(connection, 0))
    async with layer:
        await layer.publish("room", "open again")


async def has_any_connection(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Whether a layer has begun to connect."""
    return await connections_to_this_database(connection) > 0
