"""Tasks that receive from a mailbox."""

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

from pgchannels.receiving.arrival import Arrival
from tests.support.waiting import steps


class Receivers:
    """Tasks that receive one item each by a call of `receive`, in the order of their start."""

    def __init__(self, receive: Callable[[], Any]) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.received: list[tuple[int, Any]] = []  # by which receiver, in the order of receiving
        self._receive = receive

    @property
    def waiting(self) -> list[asyncio.Task[None]]:
        """Those that have not come to an end."""
        return [task for task in self.tasks if not task.done()]

    @property
    def ids(self) -> list[int]:
        """The messages that were received, in the order of receiving."""
        return [item.id for _, item in self.received if isinstance(item, Arrival)]

    def start(self) -> None:
        """One more receiver."""
        self.tasks.append(asyncio.get_running_loop().create_task(self._receive_one(len(self.tasks))))

    def cancel(self, number: int) -> None:
        """Cancel one of those that wait, woken or not."""
        if waiting := self.waiting:
            waiting[number % len(waiting)].cancel()

    async def settle(self) -> None:
        """Let everything happen that is under way."""
        await steps(3 * len(self.tasks) + 3)

    async def require_end(self, error: type[Exception]) -> None:
        """All that wait end at once; each error is of its own, and has passed through no other receiver."""
        await self.settle()
        assert not self.waiting, "a receiver waits for ever"
        outcomes = [task.exception() for task in self.tasks if not task.cancelled()]
        errors = [outcome for outcome in outcomes if outcome is not None]
        assert all(type(raised) is error for raised in errors)
        assert len(set(map(id, errors))) == len(errors)
        assert len({len(traceback.extract_tb(raised.__traceback__)) for raised in errors}) <= 1

    async def _receive_one(self, number: int) -> None:
        self.received.append((number, await self._receive()))
