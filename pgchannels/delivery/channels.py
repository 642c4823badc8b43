"""The channels of this node: their mailboxes, and the topics that they joined."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pgchannels.delivery.absences import Absences
from pgchannels.delivery.arrival import Arrival
from pgchannels.delivery.losses import Losses
from pgchannels.delivery.mailbox import Connection, Item, Mailbox, WhenFull
from pgchannels.delivery.router import Router
from pgchannels.errors import ChannelFull
from pgchannels.messages import Gap

# Messages to a channel that were sent before all senders could know that it is full.
_ON_THEIR_WAY: Final = 1000


class Channels:
    """A channel exists here while it is in a topic, holds messages, or somebody receives from it."""

    def __init__(
        self,
        router: Router,
        losses: Losses,
        capacity_of: Callable[[str], int],
        *,
        on_full: Callable[[str, bool], None],
    ) -> None:
        self._router = router
        self._losses = losses
        self._capacity_of = capacity_of
        self._on_full = on_full
        self._mailboxes: dict[str, Mailbox] = {}
        self._topics: dict[str, set[str]] = {}
        self._sending: dict[str, int] = {}
        self._absences = Absences()

    def expect(self, channel: str) -> None:
        """Take notice that somebody will receive from a channel: whatever is lost from now on concerns it."""
        if channel not in self._mailboxes:
            self._absences.leave(channel)

    def accept(self, channel: str, arrival: Arrival) -> None:
        """Put a message that was sent to a channel into its mailbox."""
        self._mailbox(channel).put(arrival, allowance=_ON_THEIR_WAY)

    async def receive(self, channel: str) -> Item:
        """Take the next message of a channel, or news, waiting for one. Cancelling loses nothing."""
        try:
            return await self._mailbox(channel).get()
        finally:
            self._forget_if_unused(channel)

    @contextmanager
    def place_in(self, channel: str) -> Iterator[None]:
        """Keep a place in a mailbox for a message that is sent meanwhile.

        :raises ChannelFull: there is none left.
        """
        sending, capacity = self._sending.get(channel, 0), self._capacity_of(channel)
        if sending + len(self._mailboxes.get(channel, ())) >= capacity:
            raise ChannelFull(f"{channel} is full: capacity={capacity} messages wait for it")
        self._sending[channel] = sending + 1
        try:
            yield
        finally:
            self._sending[channel] -= 1
            if not self._sending[channel]:
                del self._sending[channel]

    def lose(self, gap: Gap) -> None:
        """Tell all channels that messages to them were lost, or may have been."""
        self._absences.lose(gap)
        for mailbox in self._mailboxes.values():
            mailbox.lose(gap)

    def tell(self, news: Connection) -> None:
        """Tell all channels."""
        for mailbox in self._mailboxes.values():
            mailbox.tell(news)

    def expire(self, *, published_before: int) -> None:
        """Drop what nobody has received in time; in microseconds since 1970."""
        for channel, mailbox in list(self._mailboxes.items()):
            mailbox.expire(published_before=published_before)
            self._forget_if_unused(channel)

    def join(self, address: str, channel: str) -> None:
        """Give a channel every message to the address of a topic."""
        self._topics.setdefault(channel, set()).add(address)
        self._router.add(address, channel, self._mailbox(channel))

    def leave(self, address: str, channel: str) -> None:
        """Undo `join`; what the channel has got stays."""
        self._router.remove(address, channel)
        topics = self._topics.get(channel, set())
        topics.discard(address)
        if not topics:
            self._topics.pop(channel, None)
            self._forget_if_unused(channel)

    def clear(self) -> None:
        """Empty all mailboxes and leave all topics."""
        for mailbox in self._mailboxes.values():
            mailbox.clear()
        for channel, topics in list(self._topics.items()):
            for address in list(topics):
                self.leave(address, channel)

    def close(self, error: Exception) -> None:
        """End every `receive` with an error, after what is left."""
        for mailbox in self._mailboxes.values():
            mailbox.close(error)

    def _mailbox(self, channel: str) -> Mailbox:
        mailbox = self._mailboxes.get(channel)
        if mailbox is None:
            mailbox = self._mailboxes[channel] = Mailbox(
                capacity=self._capacity_of(channel),
                when_full=WhenFull.DROP_NEWEST,
                on_lost=self._losses.at(channel),
                on_full=lambda is_full: self._on_full(channel, is_full),
            )
            for gap in self._absences.come_back(channel):
                mailbox.lose(gap)
        return mailbox

    def _forget_if_unused(self, channel: str) -> None:
        mailbox = self._mailboxes.get(channel)
        if mailbox is not None and mailbox.is_idle and channel not in self._topics:
            del self._mailboxes[channel]
            self._absences.leave(channel)
