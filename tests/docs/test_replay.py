"""The page on replay does what it says."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from pgchannels import MessageLayer
from tests.support.snippets import snippets
from tests.support.waiting import until, within

PAGE = "docs/how-to/replay.md"


class Reader:
    """The application around the snippets: what it handles, saves, shows and applies."""

    def __init__(self, layer: MessageLayer) -> None:
        self.handled: list[Any] = []
        self.saved: list[str] = []
        self.shown: list[Any] = []
        self.printed: list[tuple[Any, ...]] = []
        self.while_reading: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        self.names: dict[str, Any] = {
            **{"layer": layer, "asyncpg": asyncpg, "datetime": datetime, "timedelta": timedelta, "UTC": UTC},
            **{"handle": self.handled.append, "apply": self.handled.append, "save": self.saved.append},
            **{"show": self.shown.append, "print": lambda *values: self.printed.append(values)},
            "read_orders": self._read_orders,
        }
        for block in snippets(PAGE):
            exec(block, self.names)

    async def _read_orders(self) -> list[str]:
        await self.while_reading()
        return ["the orders"]

    async def runs_until(self, count: int, name: str, *arguments: object) -> None:
        """Run a snippet until it has handled so many messages."""
        running = asyncio.create_task(self.names[name](*arguments))
        await until(lambda: asyncio.sleep(0, running.done() or len(self.handled) >= count))
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled(), running.exception()


async def test_reader_resumes_after_its_last_message(layer: MessageLayer) -> None:
    reader = Reader(layer)
    position = await layer.publish("orders", 0)
    await layer.publish_many([("orders", number) for number in (1, 2)])
    await reader.runs_until(2, "follow", str(position))
    await layer.publish("orders", 3)
    await reader.runs_until(3, "follow", reader.saved[-1])
    assert reader.handled == [1, 2, 3]


async def test_reader_looks_back(layer: MessageLayer) -> None:
    reader = Reader(layer)
    await layer.publish("orders", 0)
    await within(reader.names["look_back"]())
    assert reader.printed == [(1, 0)]


async def test_change_while_a_state_is_read_follows_it(layer: MessageLayer) -> None:
    reader = Reader(layer)
    await layer.publish("orders", "before")
    reader.while_reading = lambda: layer.publish("orders", "meanwhile")
    await reader.runs_until(1, "show_then_follow")
    assert (reader.shown, reader.handled) == ([["the orders"]], ["meanwhile"])


async def test_state_and_what_follows_are_exact(layer: MessageLayer, connection: Any) -> None:
    await connection.execute("CREATE TABLE orders (id int, item text); INSERT INTO orders VALUES (1, 'tea')")
    reader = Reader(layer)
    await layer.publish("orders", "before")
    following = reader.runs_until(1, "show_exactly", connection)
    running = asyncio.create_task(following)
    await until(lambda: asyncio.sleep(0, bool(reader.shown)))
    await layer.publish("orders", "after")
    await within(running)
    assert (reader.shown, reader.handled) == ([[(1, "tea")]], ["after"])
