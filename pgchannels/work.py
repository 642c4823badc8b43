"""Work on the messages of a queue: each is acknowledged, or given back."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pgchannels.errors import MessagesLost
from pgchannels.messages import Gap, Header, Position, time_of
from pgchannels.receiving.payloads import Opened
from pgchannels.receiving.work import Taken


@dataclass(frozen=True, slots=True)
class Work:
    """A message to work on. `attempts` counts how often it was tried, this time included: 1 at first.

    `published_at` and `position` are those of the last time that it was put into the queue: sent, or given back.
    """

    channel: str
    payload: Any
    headers: Mapping[str, Header]
    attempts: int
    position: Position
    published_at: datetime


class Source(Protocol):
    """What work comes from, and what must learn how it has ended: a node, or the nodes of several servers."""

    def take(self, queue: str, *, attempts: int, visible_seconds: float | None) -> Awaitable[Opened | Gap]:
        """See `Receiver.take`."""

    def finish(self, taken: Taken) -> None:
        """See `Queues.finish`."""

    def fail(self, taken: Taken) -> None:
        """See `Queues.fail`."""


@asynccontextmanager
async def working(
    find_source: Callable[[], Source],
    queue: str,
    *,
    attempts: int,
    visible_after: float | None,
    on_gap: Callable[[Gap], None] | None,
) -> AsyncIterator[Work]:
    """Wait for a message; acknowledge it when the block ends, give it back when the block raises."""
    source = find_source()
    while isinstance(opened := await source.take(queue, attempts=attempts, visible_seconds=visible_after), Gap):
        if on_gap is None:
            raise MessagesLost(opened)
        on_gap(opened)
    taken = opened.arrival
    assert isinstance(taken, Taken)
    try:
        yield Work(
            queue,
            opened.payload,
            opened.headers,
            taken.failures + 1,
            Position.from_id(taken.id, taken.server),
            time_of(taken.published_microseconds),
        )
    except BaseException:
        source.fail(taken)
        raise
    source.finish(taken)
