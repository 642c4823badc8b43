"""The messages of a loop that wait to be sent: bounded, in the order of the calls, cut into batches."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final

from pgchannels.database.tables import LARGEST_BATCH
from pgchannels.errors import DatabaseUnavailable, LayerClosed, PgChannelsError, copy_of
from pgchannels.sending.outgoing import Outgoing

_MESSAGES_PER_BATCH: Final = LARGEST_BATCH
_BYTES_PER_BATCH: Final = 256 * 1024
_MOST_BYTES_WAITING: Final = 64 * 1024 * 1024  # or a single larger message
_BYTES_PER_PART: Final = 5_600  # in base64, with an address in front, less than the 8000 of a notification
_BYTES_BESIDE_PAYLOAD: Final = 92  # an id and a channel
_BYTES_BESIDE_ENVELOPE: Final = 512  # what a waiting message takes in memory, besides its bytes


class Backlog:
    """The waiting messages of one writer, which takes them in batches.

    :param timeout_seconds: how long a message may wait, from its call on.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[Outgoing] = deque()
        self._waiting_bytes = 0
        self._work = asyncio.Event()
        self._in_line = 0  # callers that wait for room, in the order of their calls
        self._turn = asyncio.Lock()  # held by the first of them
        self._taken = asyncio.Event()  # set when there may be room
        self.is_closed: bool = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, outgoing: Outgoing) -> Awaitable[int]:
        """Put a message behind all others; await the result for its id.

        :raises DatabaseUnavailable: no room became free in time.
        :raises LayerClosed: the backlog is closed.
        """
        self._stamp(outgoing)
        is_room = not self._in_line and self._has_room(outgoing.size)
        return self._put(outgoing) if is_room else self._put_and_wait(outgoing)

    def add_many(self, outgoing: Sequence[Outgoing]) -> Awaitable[list[int]]:
        """As `add`, for several messages in their order."""
        for one in outgoing:
            self._stamp(one)
        if not self._in_line and self._fits(sum(one.size for one in outgoing)):
            return _all_ids([self._put(one) for one in outgoing])
        return self._put_many_and_wait(outgoing)

    async def wait(self) -> None:
        """Wait until there is something to take, or the backlog is closed."""
        self._work.clear()
        if not self._waiting and not self.is_closed:
            await self._work.wait()

    def take_batch(self) -> list[Outgoing]:
        """Take the first messages, as many as fit into one batch."""
        batch: list[Outgoing] = []
        waiting, size = self._waiting, 0
        while waiting and len(batch) < _MESSAGES_PER_BATCH:
            size += len(waiting[0].envelope)
            if batch and size > _BYTES_PER_BATCH:
                break
            batch.append(waiting.popleft())
        self._note_taken(batch)
        return batch

    def take_overdue(self, now: float) -> list[Outgoing]:
        """Take the messages that have waited too long."""
        overdue = []
        while self._waiting and self._waiting[0].deadline <= now:
            overdue.append(self._waiting.popleft())
        self._note_taken(overdue)
        return overdue

    def close(self) -> None:
        """Accept no more messages."""
        self.is_closed = True
        self._work.set()

    def _stamp(self, outgoing: Outgoing) -> None:
        loop = asyncio.get_running_loop()
        outgoing.deadline = loop.time() + self._timeout_seconds
        outgoing.size = len(outgoing.envelope) + _BYTES_BESIDE_ENVELOPE
        outgoing.sent = loop.create_future()

    async def _put_and_wait(self, outgoing: Outgoing) -> int:
        await self._put_in_turn([outgoing])
        return await outgoing.sent

    async def _put_many_and_wait(self, outgoing: Sequence[Outgoing]) -> list[int]:
        await self._put_in_turn(outgoing)
        return await _all_ids([one.sent for one in outgoing])

    async def _put_in_turn(self, outgoing: Sequence[Outgoing]) -> None:
        """Put messages one by one as there is room, after those of all earlier calls; fail those that time out."""
        self._in_line += 1
        waiting = deque(outgoing)
        try:
            async with asyncio.timeout_at(outgoing[0].deadline), self._turn:
                while waiting:
                    await self._wait_for_room(waiting[0].size)
                    self._put(waiting.popleft())
        except TimeoutError:
            fail(waiting, self._no_room())
        except LayerClosed as error:
            fail(outgoing, error)
        except asyncio.CancelledError:
            for one in outgoing:
                one.sent.cancel()  # nobody awaits those that were put
            raise
        finally:
            self._in_line -= 1

    async def _wait_for_room(self, size: int) -> None:
        while not self._has_room(size):
            self._taken.clear()
            await self._taken.wait()

    def _has_room(self, size: int) -> bool:
        return not self._waiting or self._fits(size)  # one larger than all the room must get in, too

    def _fits(self, size: int) -> bool:
        return self._waiting_bytes + size <= _MOST_BYTES_WAITING

    def _put(self, outgoing: Outgoing) -> "asyncio.Future[int]":
        if self.is_closed:
            raise LayerClosed("the layer is closed: nothing can be sent any more")
        self._waiting.append(outgoing)
        self._waiting_bytes += outgoing.size
        self._work.set()
        return outgoing.sent

    def _note_taken(self, taken: list[Outgoing]) -> None:
        self._waiting_bytes -= sum([outgoing.size for outgoing in taken])
        self._taken.set()

    def _no_room(self) -> DatabaseUnavailable:
        return DatabaseUnavailable(
            f"as many bytes of messages have waited for the database as may, {_MOST_BYTES_WAITING:,},"
            f" for {self._timeout_seconds:g} seconds: the message was not sent"
        )


def fail(batch: Iterable[Outgoing], error: Exception) -> None:
    """Give an error to the callers that wait for these messages."""
    for outgoing in batch:
        if not outgoing.sent.done():
            outgoing.sent.set_exception(copy_of(error))


def notification_parts(batch: Sequence[Outgoing]) -> list[int]:
    """Return which consecutive messages to one address share a notification, see `deliver.sql`.

    The first message of each has the number of the last, counted from 1; the others have 0.
    """
    parts = [0] * len(batch)
    first, address, expiry, room = 0, "", None, 0
    for number, outgoing in enumerate(batch):
        size = len(outgoing.envelope) + _BYTES_BESIDE_PAYLOAD
        room -= size
        if room < 0 or outgoing.address != address or outgoing.expiry_seconds != expiry:
            first, address, expiry = number, outgoing.address, outgoing.expiry_seconds
            room = _BYTES_PER_PART - size
        parts[first] = number + 1
    return parts


async def _all_ids(sent: "list[asyncio.Future[int]]") -> list[int]:
    return _ids(await asyncio.gather(*sent, return_exceptions=True))


def _ids(outcomes: Sequence[int | BaseException]) -> list[int]:
    failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if not failures:
        return [outcome for outcome in outcomes if isinstance(outcome, int)]
    first = failures[0]
    if isinstance(first, PgChannelsError) and len(failures) < len(outcomes):
        text = f"{first}; {len(outcomes) - len(failures)} of {len(outcomes)} messages were sent"
        raise type(first)(text, may_have_been_sent=True) from first
    raise next((failure for failure in failures if getattr(failure, "may_have_been_sent", False)), first)
