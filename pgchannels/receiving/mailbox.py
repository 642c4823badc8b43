"""The bounded buffer of one receiver, or of several that share its messages."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, StrEnum
from itertools import islice
from typing import Final

from pgchannels.errors import MessagesLost, copy_of
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.line import Line, Turn
from pgchannels.receiving.shared_capacity import SharedCapacity

_MOST_NEWS: Final = 16
_PATIENT_CALLS: Final = 20


class WhenFull(StrEnum):
    """What happens to a message that arrives at a full mailbox."""

    FAIL = "fail"  # the receiver gets what is in the mailbox, then MessagesLost
    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"


class ListenerState(Enum):
    """News of the listening connection."""

    LOST = "lost"
    BACK = "back"


Item = Arrival | Gap | ListenerState
OnLost = Callable[[Gap], None]
OnFull = Callable[[bool], None]


class Mailbox:
    """Holds messages until they are received. With several receivers, each item goes to the one waiting longest.

    Gaps and other news are queued in order with messages; only messages count toward the capacity. An expired message
    is not received, and does not keep another one out.

    :param has_expired: whether a message is too old to be received.
    :param on_lost: called with each loss at once, however late the receiver learns of it.
    :param on_full: called when the mailbox becomes full, and when it no longer is.
    :param on_left: called when there is something to `take`, or an end, and nobody waits; again with each item.
    :param room: where messages sent to a channel also take a place until they are received.
    """

    __slots__ = (
        "_capacity",
        "_error",
        "_has_expired",
        "_is_full",
        "_items",
        "_line",
        "_messages",
        "_on_full",
        "_on_left",
        "_on_lost",
        "_room",
        "_unread_calls",
        "_when_full",
        "is_neglected",
        "lost",
    )

    def __init__(
        self,
        *,
        capacity: int,
        when_full: WhenFull,
        has_expired: Callable[[Arrival], bool] = lambda _: False,
        on_lost: OnLost = lambda _: None,
        on_full: OnFull = lambda _: None,
        on_left: Callable[[], None] | None = None,
        room: SharedCapacity | None = None,
    ) -> None:
        self.lost: int = 0
        self.is_neglected: bool = False  # something expired since the last item was taken, and nobody waited for it
        self._has_expired = has_expired
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
        self._line = Line()
        self._error: Exception | None = None

    def __len__(self) -> int:
        return self._messages

    @property
    def is_up_to_date(self) -> bool:
        """Whether everything that was routed to it has been taken: nothing waits, nothing came after its end."""
        return not self._items and self._error is None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in it and nobody is inside `get`, woken or not."""
        return not self._items and not self._line.places

    def put(self, arrival: Arrival, *, allowance: int = 0) -> None:
        """Add a message, or a gap if it is gone; never waits. `allowance` is room beyond the capacity."""
        if arrival.envelope is None:
            self.lose(Gap(GapReason.EXPIRED, 1))
        elif self._error is not None:
            self._count_after_the_end()
        elif self._messages < self._capacity + allowance or self.expire() or self._make_room():
            self._items.append(arrival)
            self._messages += 1
            if self._room is not None and arrival.channel is not None:
                self._room.enter(arrival, self)
            if self._messages >= self._capacity:
                self._note_fullness()
            self._wake()

    def lose(self, gap: Gap) -> None:
        """Report lost messages to the receiver, behind everything in the mailbox."""
        self._count_lost(gap)
        self.tell(gap)

    def tell(self, news: Gap | ListenerState) -> None:
        """Add a gap or other news; a gap merges into an earlier one with its reason if no message is in between."""
        if self._join(news) or self._error is not None:
            return
        if isinstance(news, Gap) or len(self._items) - self._messages < self._capacity + _MOST_NEWS:
            self._items.append(news)
            self._wake()

    def spare(self) -> Item | None:
        """Return the item that `take` would take; None while a task is inside `get`, since it may be for that task."""
        if not self._items or self._line.places:
            return None
        self._expire_first()
        return self._items[0]

    def take(self) -> Item:
        """Take the item that `spare` returns."""
        self._unread_calls = 0
        self.is_neglected = False
        item = self._items.popleft()
        if isinstance(item, Arrival):
            if self._has_expired(item):
                self._items.appendleft(item)
                self.expire()
                return self.take()  # the gap in its place
            self._note_removed(item)
        return item

    async def get(self) -> Item:
        """Take the oldest item; wait for one, and for earlier callers. Cancelling this loses nothing.

        Each call raises its own copy of an error, after other tasks could run.

        :raises MessagesLost: the mailbox overflowed under `WhenFull.FAIL`, and everything before the loss was taken.
        """
        if self._items and not self._line.places:
            return self.take()
        if self._error is not None and not self._items:
            await asyncio.sleep(0)
        try:
            return await self._line.first(self._take_if_any)
        finally:
            self._wake()  # the next one, even if this one was woken and is cancelled

    @contextmanager
    def turn(self) -> Iterator[Turn[Item]]:
        """Yield what takes the oldest item, to wait for it beside others; cancelling the wait loses nothing."""
        try:
            yield Turn(self._line, self._take_if_any, self._age)
        finally:
            self._wake()

    def close(self, error: Exception) -> None:
        """Accept no more; receivers get what is left, then the error."""
        self._error = self._error or error
        self._line.wake(len(self._line.places))
        if self._on_left is not None and not self._line.places:
            self._on_left()

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

    def expire(self, *, most: int = sys.maxsize) -> int:
        """Drop the oldest messages that have expired, at most `most`; return how many."""
        if not self._messages:
            return 0
        expired = 0
        for item in islice(self._items, self._first_message(), None):
            if expired == most or not isinstance(item, Arrival) or not self._has_expired(item):
                break
            expired += 1
        if expired:
            self.is_neglected = not self._line.places
            self._drop_oldest(expired, GapReason.EXPIRED)
        return expired

    def look_after(self, *, most: int) -> bool:
        """Drop expired messages, at most `most`; return whether there may be more.

        After many calls while nobody reads, it drops the news as well: the reader is gone.
        """
        if self.expire(most=most) == most:
            return True
        self._unread_calls = 0 if self._line.places else self._unread_calls + 1
        if self._unread_calls > _PATIENT_CALLS and not self._messages:
            self._items.clear()
        return False

    def _expire_first(self) -> None:
        first = self._items[0]
        if isinstance(first, Arrival) and self._has_expired(first):
            self.expire()

    def _age(self) -> float:
        first = self._items[0] if self._items else None
        return first.published_microseconds if isinstance(first, Arrival) else 0

    def _take_if_any(self) -> Item | None:
        if self._items:
            return self.take()
        if self._error is not None:
            raise copy_of(self._error)
        return None

    def _join(self, news: Gap | ListenerState) -> bool:
        for place in reversed(range(len(self._items))):
            item = self._items[place]
            if (joined := joined_news(item, news)) is not None:
                self._items[place] = joined
                return True
            if isinstance(item, Arrival) or isinstance(news, ListenerState):
                break
        return False

    def _make_room(self) -> bool:
        if self._when_full is WhenFull.DROP_OLDEST:
            self._drop_oldest(1, GapReason.CAPACITY)
            return True
        if self._when_full is WhenFull.DROP_NEWEST:
            self.lose(Gap(GapReason.CAPACITY, 1))
        else:
            self._count_lost(Gap(GapReason.CAPACITY, 1))
            self.close(self._too_slow())
        return False

    def _drop_oldest(self, count: int, reason: GapReason) -> None:
        """Replace the oldest messages, which are adjacent, with a gap."""
        place, gap = self._first_message(), Gap(reason, count)
        self._count_lost(gap)
        self._items.rotate(-place)
        dropped = [self._items.popleft() for _ in range(count)]
        if place and (joined := joined_news(self._items[-1], gap)) is not None:
            self._items[-1] = joined
        else:
            self._items.append(gap)
            place += 1
        self._items.rotate(place)
        for item in dropped:
            assert isinstance(item, Arrival)
            self._note_removed(item)

    def _first_message(self) -> int:
        return next(place for place, item in enumerate(self._items) if isinstance(item, Arrival))

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
            self._room.leave(arrival)
        if self._is_full:
            self._note_fullness()

    def _note_fullness(self) -> None:
        is_full = self._messages >= self._capacity
        if is_full is not self._is_full:
            self._is_full = is_full
            self._on_full(is_full)

    def _wake(self) -> None:
        if self._line.places:
            self._line.wake(len(self._items) or (self._error is not None))
        elif self._on_left is not None and self._items:
            self._on_left()


def joined_news(item: Item | None, news: Gap | ListenerState) -> Gap | ListenerState | None:
    """Return what stands for two adjacent pieces of news; None if both must stay."""
    if item is news:
        return news
    if not (isinstance(item, Gap) and isinstance(news, Gap) and item.reason is news.reason):
        return None
    return Gap(item.reason, None if item.count is None or news.count is None else item.count + news.count)
