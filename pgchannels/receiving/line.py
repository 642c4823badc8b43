"""Receivers in the order in which they came."""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


class Line:
    """First come, first served. Whoever adds something wakes the first; so does whoever leaves something behind."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        # Hardly ever more than one, and there are many lines: an empty deque takes ten times as much memory.
        self.places: list[_Place] = []  # of those who wait

    async def first(self, take: Callable[[], T | None]) -> T:
        """Wait to be the first for whom `take` returns something, and return that; raises what `take` raises.

        Nothing is awaited after `take`: whoever is cancelled has taken nothing.
        """
        place = _Place()
        self.places.append(place)
        try:
            # Asked anew each time: what somebody was woken for may have been removed before he runs.
            while self.places[0] is not place or (taken := take()) is None:
                await place.wait()
            return taken
        finally:
            self.places.remove(place)

    def wake(self, count: int) -> None:
        """Wake the first ones, as many as there are things to take."""
        for place in islice(self.places, count):
            place.wake()


class _Place:
    """One who waits, and may be woken several times."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._woken = asyncio.get_running_loop().create_future()
        await self._woken

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
