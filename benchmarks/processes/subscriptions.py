"""What a hundred thousand sockets take in one process: a subscription each, to a thousand topics."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks.works.memory import resident_bytes
from pgchannels import MessageLayer

_TOPICS: Final = 1_000
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """How many there were, what each took of the process, and how long the last of a topic waited for a message."""

    count: int
    topics: int
    seconds_to_begin: float
    bytes_each: float
    seconds_to_last: float


async def measure_subscriptions(url: str, count: int) -> Subscriptions:
    """Begin them, publish to one topic, and end them."""
    async with MessageLayer(url) as layer, AsyncExitStack() as stack:
        before, begun = resident_bytes(), time.perf_counter()
        held = []
        for first in range(0, count, _AT_ONCE):
            some = [layer.subscribe(f"room.{n % _TOPICS}") for n in range(first, min(first + _AT_ONCE, count))]
            held += await asyncio.gather(*[stack.enter_async_context(one) for one in some])
        seconds, memory = time.perf_counter() - begun, resident_bytes() - before
        receiving = [asyncio.create_task(anext(one)) for one in held[::_TOPICS]]
        await asyncio.sleep(0)
        begun = time.perf_counter()
        await layer.publish("room.0", "to all in the room")
        await asyncio.gather(*receiving)
        last = time.perf_counter() - begun
    return Subscriptions(count, min(count, _TOPICS), seconds, memory / count, last)
