"""Waiting receivers, served in the order of arrival."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K")


class Line:
    """First come, first served. Adding an item wakes the first in line, and so does leaving one behind."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        # Hardly ever more than one, and there are many lines: an empty deque takes ten times as much memory.
        self.places: list[_Place] = []  # of waiting tasks

    async def first(self, take: Callable[[], T | None]) -> T:
        """Wait to be first in line and for `take` to return something; return that, or raise what `take` raises.

        Nothing is awaited after `take`: a cancelled task has taken nothing.
        """
        place = _Place()
        self.places.append(place)
        try:
            # Check again after each wake: the item may have been removed before this task runs.
            while self.places[0] is not place or (taken := take()) is None:
                await place.wait()
            return taken
        finally:
            self.places.remove(place)

    def wake(self, count: int) -> None:
        """Wake the first `count` in line, one for each item to take."""
        for place in islice(self.places, count):
            place.wake()


@dataclass(frozen=True, slots=True)
class Turn(Generic[T]):
    """What a task takes once it is first in a line; `age` orders what several turns offer, the least first."""

    line: Line
    take: Callable[[], T | None]
    age: Callable[[], float] = lambda: 0.0

    def unless(self, error: Callable[[], BaseException | None]) -> "Turn[T]":
        """Return the same turn that raises an error once there is one."""

        def take() -> T | None:
            if (raised := error()) is not None:
                raise raised
            return self.take()

        return Turn(self.line, take, self.age)

    def of(self, origin: K) -> "Turn[tuple[K, T]]":
        """Return the same turn that also says where the item comes from."""
        return Turn(self.line, lambda: None if (taken := self.take()) is None else (origin, taken), self.age)


async def first_of(turns: Sequence[Turn[T]]) -> T:
    """As `Line.first`, in several lines at the same time: of what can be taken, take the oldest."""
    place = _Place()
    for turn in turns:
        turn.line.places.append(place)
    try:
        while True:
            for turn in sorted((turn for turn in turns if turn.line.places[0] is place), key=lambda turn: turn.age()):
                if (taken := turn.take()) is not None:
                    return taken
            await place.wait()
    finally:
        for turn in turns:
            turn.line.places.remove(place)


class _Place:
    """A waiting task's place in line, which may be woken several times."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._woken = asyncio.get_running_loop().create_future()
        await self._woken

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
