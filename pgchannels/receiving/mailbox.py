"""The bounded buffer of one receiver."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Final

from pgchannels.errors import MessagesLost
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.arrival import Arrival

_MOST_NEWS: Final = 16
_PATIENT_CALLS: Final = 20


class WhenFull(StrEnum):
    """What happens to a message that comes to a full mailbox."""

    FAIL = "fail"  # the receiver gets what it has, then MessagesLost
    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"


class Connection(Enum):
    """News of the listening connection."""

    LOST = "lost"
    BACK = "back"


Item = Arrival | Gap | Connection
OnLost = Callable[[Gap], None]
OnFull = Callable[[bool], None]


class Room:
    """How many messages that were sent to channels wait in several mailboxes, and how many may.

    :param on_full: called when there is no place left, and when there is one again.
    """

    __slots__ = ("__weakref__", "_on_full", "capacity", "taken")

    def __init__(self, capacity: int, *, on_full: OnFull) -> None:
        self.capacity: int = capacity
        self.taken: int = 0
        self._on_full = on_full

    def enter(self) -> None:
        """Take a place; there is always one for a message that was sent before senders could know."""
        self.taken += 1
        if self.taken == self.capacity:
            self._on_full(True)

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
        if self.taken == self.capacity - 1:
            self._on_full(False)


class Mailbox:
    """Holds messages until they are received; several may receive, the longest waiting one first.

    Gaps and other news stand in it at their place between the messages; the capacity counts messages alone.

    :param on_lost: called with each loss at once, however late the receiver comes to it.
    :param on_full: called when the mailbox becomes full, and when it no longer is.
    :param on_left: called with each item that nobody waits for.
    :param room: where messages that were sent to a channel take a place, too, until they are received.
    """

    __slots__ = (
        "_capacity",
        "_error",
        "_is_full",
        "_items",
        "_messages",
        "_on_full",
        "_on_left",
        "_on_lost",
        "_room",
        "_unread_calls",
        "_waiting",
        "_when_full",
        "lost",
    )

    def __init__(
        self,
        *,
        capacity: int,
        when_full: WhenFull,
        on_lost: OnLost = lambda _: None,
        on_full: OnFull = lambda _: None,
        on_left: Callable[[], None] = lambda: None,
        room: Room | None = None,
    ) -> None:
        self.lost: int = 0
        self._capacity = capacity
        self._when_full = when_full
        self._on_lost = on_lost
        self._on_full = on_full
        self._on_left = on_left
        self._room = room
        self._items: deque[Item] = deque()
        self._messages = 0
        self._is_full = False
        self._unread_calls = 0
        # Hardly ever more than one, and there are many mailboxes: an empty deque takes ten times as much memory.
        self._waiting: list[asyncio.Future[None]] = []
        self._error: Exception | None = None

    def __len__(self) -> int:
        return self._messages

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in it and nobody waits for anything."""
        return not self._items and not self._waiting

    def put(self, arrival: Arrival, *, allowance: int = 0) -> None:
        """Add a message, or that it is gone; never waits. `allowance` is room beyond the capacity."""
        if arrival.envelope is None:
            self.lose(Gap(GapReason.EXPIRED, 1))
        elif self._error is not None:
            self._count_after_the_end()
        elif self._messages < self._capacity + allowance or self._make_room():
            self._items.append(arrival)
            self._messages += 1
            if self._room is not None and arrival.channel is not None:
                self._room.enter()
            if self._messages >= self._capacity:
                self._note_fullness()
            self._wake_next()

    def lose(self, gap: Gap) -> None:
        """Tell the receiver, behind all that it has got, that messages were lost."""
        self._count_lost(gap)
        self.tell(gap)

    def tell(self, news: Gap | Connection) -> None:
        """Add what is no message; a gap joins the gap that it follows."""
        last = self._items[-1] if self._items else None
        if (joined := _joined(last, news)) is not None:
            self._items[-1] = joined
        elif self._error is None and len(self._items) - self._messages < self._capacity + _MOST_NEWS:
            self._items.append(news)
            self._wake_next()

    def oldest(self) -> Item | None:
        """The item that `get` would take at once."""
        return self._items[0] if self._items else None

    async def get(self) -> Item:
        """Take the oldest item, waiting for one. Cancelling this loses nothing.

        :raises MessagesLost: the mailbox was full and is to fail then; all before the loss was taken.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except BaseException:
                # Woken and cancelled at once: the message is still here, and somebody else may be waiting for it.
                if waiter.done() and not waiter.cancelled() and self._items:
                    self._wake_next()
                raise
            finally:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
        self._unread_calls = 0
        return self._take()

    def close(self, error: Exception) -> None:
        """Take no more; receivers get what is left, then the error."""
        self._error = self._error or error
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self, *, until: int | None = None) -> list[Arrival]:
        """Remove and return the messages, all of them or up to an id."""
        removed: list[Arrival] = []
        kept: deque[Item] = deque()
        for item in self._items:
            if isinstance(item, Arrival) and (until is None or item.id <= until):
                removed.append(item)
            else:
                kept.append(item)
        self._items = kept
        for arrival in removed:
            self._note_removed(arrival)
        return removed

    def expire(self, *, published_before: int) -> None:
        """Drop the messages that were published before a moment, in microseconds since 1970.

        Called again and again while nobody reads, it drops the news at last, too: the reader is gone.
        """
        self._unread_calls += 1
        if self._unread_calls > _PATIENT_CALLS and not self._messages:
            self._items.clear()
        while self._messages and self._oldest_message().published_microseconds < published_before:
            self._drop_oldest(GapReason.EXPIRED)

    def _take(self) -> Item:
        item = self._items.popleft()
        if isinstance(item, Arrival):
            self._note_removed(item)
        return item

    def _make_room(self) -> bool:
        if self._when_full is WhenFull.DROP_OLDEST:
            self._drop_oldest(GapReason.CAPACITY)
            return True
        if self._when_full is WhenFull.DROP_NEWEST:
            self.lose(Gap(GapReason.CAPACITY, 1))
        else:
            self._count_lost(Gap(GapReason.CAPACITY, 1))
            self.close(self._too_slow())
        return False

    def _drop_oldest(self, reason: GapReason) -> None:
        place, gap = self._first_message(), Gap(reason, 1)
        self._count_lost(gap)
        oldest, self._items[place] = self._items[place], gap
        assert isinstance(oldest, Arrival)
        if place and (joined := _joined(self._items[place - 1], gap)) is not None:
            self._items[place - 1] = joined
            del self._items[place]
        self._note_removed(oldest)

    def _first_message(self) -> int:
        return next(place for place, item in enumerate(self._items) if isinstance(item, Arrival))

    def _oldest_message(self) -> Arrival:
        return next(item for item in self._items if isinstance(item, Arrival))

    def _count_lost(self, gap: Gap) -> None:
        self.lost += gap.count or 0
        self._on_lost(gap)

    def _count_after_the_end(self) -> None:
        if isinstance(self._error, MessagesLost):
            self._count_lost(Gap(GapReason.CAPACITY, 1))
            self._error.gap = Gap(GapReason.CAPACITY, self.lost)

    def _too_slow(self) -> MessagesLost:
        return MessagesLost(
            Gap(GapReason.CAPACITY, self.lost),
            f" (capacity={self._capacity}). The subscription has ended:"
            " receive faster, raise the capacity, or choose when_full='drop_oldest' or 'drop_newest'",
        )

    def _note_removed(self, arrival: Arrival) -> None:
        self._messages -= 1
        if self._room is not None and arrival.channel is not None:
            self._room.leave()
        if self._is_full:
            self._note_fullness()

    def _note_fullness(self) -> None:
        is_full = self._messages >= self._capacity
        if is_full is not self._is_full:
            self._is_full = is_full
            self._on_full(is_full)

    def _wake_next(self) -> None:
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.done():
                waiter.set_result(None)
                return
        self._on_left()


def _joined(item: Item | None, news: Gap | Connection) -> Gap | Connection | None:
    if item is news:
        return news
    if not (isinstance(item, Gap) and isinstance(news, Gap) and item.reason is news.reason):
        return None
    return Gap(item.reason, None if item.count is None or news.count is None else item.count + news.count)
