"""The bounded buffer of one receiver."""

import asyncio
from collections import deque
from enum import StrEnum

from pgchannels.delivery.arrival import Arrival
from pgchannels.errors import MessagesLost


class WhenFull(StrEnum):
    """What happens to a message that comes to a full mailbox."""

    FAIL = "fail"  # the receiver gets what it has, then MessagesLost
    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"


class Mailbox:
    """Holds messages until they are received; several may receive, the longest waiting one first."""

    __slots__ = ("_arrivals", "_capacity", "_error", "_waiting", "_when_full", "lost")

    def __init__(self, *, capacity: int, when_full: WhenFull) -> None:
        self.lost = 0
        self._capacity = capacity
        self._when_full = when_full
        self._arrivals: deque[Arrival] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._arrivals)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in it and nobody waits for anything."""
        return not self._arrivals and not self._waiting

    def put(self, arrival: Arrival) -> None:
        """Add a message; never waits."""
        if self._error is not None:
            self._count_lost()
            return
        if len(self._arrivals) >= self._capacity:
            self._count_lost()
            if self._when_full is WhenFull.FAIL:
                self.close(self._too_slow())
            if self._when_full is not WhenFull.DROP_OLDEST:
                return
            self._arrivals.popleft()
        self._arrivals.append(arrival)
        self._wake_next()

    async def get(self) -> Arrival:
        """Take the oldest message, waiting for one. Cancelling this loses nothing.

        :raises MessagesLost: the mailbox was full and is to fail then; all before the loss was taken.
        """
        while not self._arrivals:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._arrivals.popleft()

    def close(self, error: Exception) -> None:
        """Take no more; receivers get what is left, then the error."""
        self._error = self._error or error
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self, *, until: int | None = None) -> list[Arrival]:
        """Remove and return what is in the mailbox, all of it or up to an id."""
        removed = [arrival for arrival in self._arrivals if until is None or arrival.id <= until]
        self._arrivals = deque(arrival for arrival in self._arrivals if until is not None and arrival.id > until)
        return removed

    def _count_lost(self) -> None:
        self.lost += 1
        if isinstance(self._error, MessagesLost):
            self._error.count = self.lost

    def _too_slow(self) -> MessagesLost:
        return MessagesLost(
            f"the subscriber was too slow: more than capacity={self._capacity} messages waited for it."
            " Receive faster, raise the capacity, or choose when_full='drop_oldest' or 'drop_newest'",
            count=self.lost,
        )

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            # Woken and cancelled at once: the message is still here, and somebody else may be waiting for it.
            if waiter.done() and not waiter.cancelled() and self._arrivals:
                self._wake_next()
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _wake_next(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
