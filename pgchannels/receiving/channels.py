"""The channels of this node: their mailboxes, and the topics they joined."""

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Final
from weakref import WeakValueDictionary

from pgchannels.errors import channel_full, copy_of
from pgchannels.messages import Gap, GapReason
from pgchannels.names import non_local_part
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.line import Line, Turn
from pgchannels.receiving.losses import Bursts, Losses
from pgchannels.receiving.mailbox import Item, ListenerState, Mailbox, WhenFull
from pgchannels.receiving.missed_gaps import MissedGaps
from pgchannels.receiving.router import Router
from pgchannels.receiving.shared_capacity import SharedCapacity
from pgchannels.receiving.sweep import MOST_IN_A_STEP

# Messages to a channel that may be sent before all senders know that it is full.
_ON_THEIR_WAY: Final = 1000

logger: logging.Logger = logging.getLogger("pgchannels")


@dataclass(slots=True)
class _Membership:
    """When a channel last joined a topic, and after which id each join begins that may still be undone."""

    time: float = 0
    begins: list[int] = field(default_factory=list)


class Channels:
    """A channel exists here while it is in a topic, holds messages, or somebody receives from it.

    Channels whose names are the same up to the '!' share one capacity for messages sent to them; messages through
    topics are bounded per channel.
    """

    def __init__(
        self,
        router: Router,
        losses: Losses,
        capacity_of: Callable[[str], int],
        *,
        has_expired: Callable[[Arrival], bool],
        note_full: Callable[[str, bool], None],
    ) -> None:
        self.abandoned: int = 0  # channels removed from their topics because nobody receives from them
        self._router = router
        self._has_expired = has_expired
        self._bursts = Bursts()
        self._losses = losses
        self._capacity_of = capacity_of
        self._note_full = note_full
        self._full: set[str] = set()  # names of channels, and their common parts
        self._mailboxes: dict[str, Mailbox] = {}
        self._rooms: WeakValueDictionary[str, SharedCapacity] = WeakValueDictionary()  # kept alive by the mailboxes
        self._topics: dict[str, dict[str, _Membership]] = {}
        self._sending: dict[str, int] = {}
        self._lines: dict[str, Line] = {}  # of tasks that receive by a prefix
        self._missed_gaps = MissedGaps()
        self._error: Exception | None = None

    def expect(self, channel: str) -> None:
        """Record that somebody will receive from a channel: every gap from now on concerns it."""
        if channel not in self._mailboxes:
            self._missed_gaps.leave(channel)

    def accept(self, channel: str, arrival: Arrival) -> None:
        """Put a message that was sent to a channel into its mailbox."""
        self._mailbox(channel).put(arrival, allowance=_ON_THEIR_WAY)

    async def receive(self, channel: str) -> Item:
        """Wait for the next message of a channel, or news, and take it. Cancelling loses nothing."""
        try:
            return await self._mailbox(channel).get()
        finally:
            self._forget_if_unused(channel)

    @contextmanager
    def turn(self, channel: str) -> Iterator[Turn[Item]]:
        """As `receive`, for a task that waits elsewhere, too."""
        try:
            with self._mailbox(channel).turn() as turn:
                yield turn
        finally:
            self._forget_if_unused(channel)

    async def receive_any(self, prefix: str) -> tuple[str, Item]:
        """Wait for the oldest item of all channels with this prefix, and take it. Cancelling loses nothing.

        A channel from which a task receives by name is skipped: the item may be for that task.
        """
        with self.turn_of_any(prefix) as turn:
            return await turn.line.first(turn.take)

    @contextmanager
    def turn_of_any(self, prefix: str) -> Iterator[Turn[tuple[str, Item]]]:
        """As `receive_any`, for a task that waits elsewhere, too."""
        line = self._lines.setdefault(prefix, Line())
        try:
            yield Turn(line, partial(self._take_from_any, prefix))
        finally:
            line.wake(1)
            if not line.places:
                del self._lines[prefix]

    @contextmanager
    def place_in(self, channel: str) -> Iterator[None]:
        """Reserve a place in a mailbox for a message that is being sent.

        :raises ChannelFull: no place is left.
        """
        part, room = non_local_part(channel), self._room(channel)
        if self._is_full(channel, room):
            room.expire()
            if channel in self._mailboxes:
                self._mailboxes[channel].expire()
        if self._is_full(channel, room):
            raise channel_full(channel, room.capacity)
        self._sending[part] = self._sending.get(part, 0) + 1
        try:
            yield
        finally:
            self._sending[part] -= 1
            if not self._sending[part]:
                del self._sending[part]

    @property
    def are_full(self) -> bool:
        """Whether any channel is full."""
        return bool(self._full)

    def expire_full(self) -> Iterator[None]:
        """Drop expired messages from full channels, which then accept messages again; each step is short."""
        for name in list(self._full):
            held = self._rooms.get(name) if name.endswith("!") else self._mailboxes.get(name)
            if held is not None:
                held.expire()
            yield

    def lose(self, gap: Gap) -> None:
        """Report to all channels that messages to them were lost, or may have been."""
        self._missed_gaps.lose(gap)
        for mailbox in self._mailboxes.values():
            mailbox.lose(gap)
        if gap.reason is GapReason.CRASH:  # ids of another log may be smaller
            for membership in chain.from_iterable(topics.values() for topics in self._topics.values()):
                membership.begins = [0]

    def tell(self, news: ListenerState) -> None:
        """Report news to all channels."""
        for mailbox in self._mailboxes.values():
            mailbox.tell(news)

    def look_after(self, *, joined_before: float = -math.inf) -> Iterator[None]:
        """Drop what nobody received in time, and undo every `join` before a time of the event loop's clock.

        A channel whose messages expired while nobody received from it is removed from its topics: its receiver is gone.
        Each step is short, and anything may happen between two steps.
        """
        for channel, mailbox in list(self._mailboxes.items()):
            while mailbox.look_after(most=MOST_IN_A_STEP):
                yield
            if self._mailboxes.get(channel) is not mailbox:
                continue
            if mailbox.is_neglected and non_local_part(channel) not in self._lines:
                mailbox.is_neglected = False
                self._abandon(channel)
            self._leave_joined_before(channel, joined_before)
            self._forget_if_unused(channel)
            yield

    def join(self, address: str, channel: str, *, after: int, obeyed_until: int) -> None:
        """Give a channel every message after an id to the address of a topic.

        :param obeyed_until: every command to leave with an id up to this one has been obeyed.
        """
        membership = self._topics.setdefault(channel, {}).setdefault(address, _Membership())
        membership.time = asyncio.get_running_loop().time()
        membership.begins = sorted([after, *(begin for begin in membership.begins if begin > obeyed_until)])
        self._router.add(address, channel, self._mailbox(channel), after=after)

    def leave(self, address: str, channel: str, *, at: int | None = None) -> None:
        """Undo `join`; what is in the mailbox stays. A later join, after the id `at`, remains and begins there."""
        self._router.remove(address, channel)
        topics = self._topics.get(channel, {})
        membership = topics.get(address, _Membership())
        membership.begins = [begin for begin in membership.begins if at is not None and begin >= at]
        if membership.begins:
            self._router.add(address, channel, self._mailbox(channel), after=membership.begins[0])
            return
        topics.pop(address, None)
        if not topics:
            self._topics.pop(channel, None)
            self._forget_if_unused(channel)

    def release(self, channel: str) -> None:
        """Remove a channel from all topics, and drop what it holds: nobody will receive from it again."""
        self._leave_joined_before(channel, math.inf)
        if channel in self._mailboxes:
            self._mailboxes[channel].clear()
            self._forget_if_unused(channel)

    def clear(self) -> None:
        """Empty all mailboxes, and remove all channels from their topics."""
        for mailbox in self._mailboxes.values():
            mailbox.clear()
        for channel in list(self._topics):
            self._leave_joined_before(channel, math.inf)

    def close(self, error: Exception) -> None:
        """End every `receive`, now and later, with an error once what is left has been taken."""
        self._error = self._error or error
        for mailbox in self._mailboxes.values():
            mailbox.close(error)
        for line in self._lines.values():
            line.wake(len(line.places))

    def _abandon(self, channel: str) -> None:
        if channel not in self._topics:
            return
        self.abandoned += 1
        if self._bursts.begins("abandoned"):
            text = "%s leaves its groups: messages expired while nobody received from it; others are not logged"
            logger.warning(text, channel)
        self._leave_joined_before(channel, math.inf)

    def _leave_joined_before(self, channel: str, time: float) -> None:
        topics = self._topics.get(channel, {})
        for address in [address for address, membership in topics.items() if membership.time < time]:
            self.leave(address, channel)

    def _is_full(self, channel: str, room: SharedCapacity) -> bool:
        waiting = max(room.taken, len(self._mailboxes.get(channel, ())))
        return self._sending.get(non_local_part(channel), 0) + waiting >= room.capacity

    def _on_full(self, name: str, is_full: bool) -> None:
        if is_full:
            self._full.add(name)
        else:
            self._full.discard(name)
        self._note_full(name, is_full)

    def _mailbox(self, channel: str) -> Mailbox:
        mailbox = self._mailboxes.get(channel)
        if mailbox is None:
            mailbox = self._mailboxes[channel] = Mailbox(
                capacity=self._capacity_of(channel),
                when_full=WhenFull.DROP_NEWEST,
                has_expired=self._has_expired,
                on_lost=self._losses.at(channel),
                on_full=partial(self._on_full, channel),
                on_left=partial(self._wake_any, channel),
                room=self._room(channel),
            )
            for gap in self._missed_gaps.come_back(channel):
                mailbox.lose(gap)
            if self._error is not None:
                mailbox.close(self._error)
        return mailbox

    def _forget_if_unused(self, channel: str) -> None:
        mailbox = self._mailboxes.get(channel)
        if mailbox is not None and mailbox.is_idle and channel not in self._topics:
            del self._mailboxes[channel]
            self._missed_gaps.leave(channel)

    def _room(self, channel: str) -> SharedCapacity:
        part = non_local_part(channel)
        room = self._rooms.get(part)
        if room is None:
            room = self._rooms[part] = SharedCapacity(self._capacity_of(channel), on_full=partial(self._on_full, part))
        return room

    def _take_from_any(self, prefix: str) -> tuple[str, Item] | None:
        channel = self._first_with_items(prefix)
        if channel is not None:
            item = self._mailboxes[channel].take()
            self._forget_if_unused(channel)
            return channel, item
        if self._error is not None:
            raise copy_of(self._error)
        return None

    def _first_with_items(self, prefix: str) -> str | None:
        oldest = {
            channel: item
            for channel, mailbox in self._mailboxes.items()
            if channel.startswith(prefix) and (item := mailbox.spare()) is not None
        }
        return min(oldest, key=lambda channel: getattr(oldest[channel], "id", 0), default=None)

    def _wake_any(self, channel: str) -> None:
        if line := self._lines.get(non_local_part(channel)):
            line.wake(1)
