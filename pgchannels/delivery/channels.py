"""The channels of this node: their mailboxes, and the topics that they joined."""

from collections.abc import Callable

from pgchannels.delivery.arrival import Arrival
from pgchannels.delivery.mailbox import Mailbox, WhenFull
from pgchannels.delivery.router import Router


class Channels:
    """A channel exists here while it is in a topic, holds messages, or somebody receives from it."""

    def __init__(self, router: Router, capacity_of: Callable[[str], int]) -> None:
        self._router = router
        self._capacity_of = capacity_of
        self._mailboxes: dict[str, Mailbox] = {}
        self._topics: dict[str, set[str]] = {}

    def accept(self, channel: str, arrival: Arrival) -> None:
        """Put a message into the mailbox of a channel; a full one drops and counts it."""
        self._mailbox(channel).put(arrival)

    async def receive(self, channel: str) -> Arrival:
        """Take the next message of a channel, waiting for one. Cancelling loses nothing."""
        try:
            return await self._mailbox(channel).get()
        finally:
            self._forget_if_unused(channel)

    def join(self, address: str, channel: str) -> None:
        """Give a channel every message to the address of a topic."""
        self._topics.setdefault(channel, set()).add(address)
        self._router.add(address, channel, self._mailbox(channel).put)

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
            mailbox = Mailbox(capacity=self._capacity_of(channel), when_full=WhenFull.DROP_NEWEST)
            self._mailboxes[channel] = mailbox
        return mailbox

    def _forget_if_unused(self, channel: str) -> None:
        mailbox = self._mailboxes.get(channel)
        if mailbox is not None and mailbox.is_idle and channel not in self._topics:
            del self._mailboxes[channel]
