"""The topics that this node receives, and the mailboxes of their subscriptions."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from pgchannels.names import topic_address
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.mailbox import Mailbox
from pgchannels.receiving.replay import Cursor, Subscriber
from pgchannels.receiving.router import Router
from pgchannels.receiving.sweep import MOST_IN_A_STEP


class Topics:
    """A topic is received here while a subscription or a channel is in it.

    :param require_running: raises an error if the node has ended.
    """

    def __init__(self, prefix: str, router: Router, hosting: Hosting, *, require_running: Callable[[], None]) -> None:
        self._prefix = prefix
        self._require_running = require_running
        self._router = router
        self._hosting = hosting
        self._mailboxes: dict[Hashable, Mailbox] = {}  # of subscriptions

    async def subscribe(self, topics: Sequence[str], key: Hashable, mailbox: Subscriber) -> dict[str, int]:
        """Begin to receive topics: every message sent after this returns arrives in the mailbox.

        Returns the id after which the messages of each address arrive.
        """
        addresses = await self.reserve(topics, key)
        for address, position in addresses.items():
            self._router.add(address, key, mailbox, after=position)
        return addresses

    async def replay(self, after: Mapping[str, int], key: Hashable, mailbox: Subscriber) -> Cursor:
        """As `subscribe`, but for every message after an id of each topic.

        The cursor knows when the mailbox takes over.
        """
        await self.reserve(list(after), key)
        return Cursor(key, mailbox, {topic_address(self._prefix, topic): begin for topic, begin in after.items()})

    def unsubscribe(self, topics: Sequence[str], key: Hashable) -> None:
        """Undo `subscribe` and `replay`."""
        for topic in topics:
            self._router.remove(topic_address(self._prefix, topic), key)

    async def reserve(self, topics: Iterable[str], key: Hashable) -> dict[str, int]:
        """Host topics; return a position for the address of each: every message sent from now on has a greater id."""
        self._require_running()
        addresses = [topic_address(self._prefix, topic) for topic in topics]
        for address in addresses:
            self._router.reserve(address, key)
        try:
            return dict(zip(addresses, await self._hosting.positions_of(addresses), strict=True))
        except BaseException:
            for address in addresses:
                self._router.release(address, key)
            raise

    def keep(self, key: Hashable, mailbox: Mailbox) -> None:
        """Expire messages in a subscription's mailbox, and close it with the reason when the node closes or fails."""
        self._mailboxes[key] = mailbox

    def forget(self, key: Hashable) -> None:
        """Undo `keep`."""
        self._mailboxes.pop(key, None)

    def expire(self) -> Iterator[None]:
        """Drop what has waited too long, a bounded number of messages per step."""
        for mailbox in list(self._mailboxes.values()):
            while mailbox.expire(most=MOST_IN_A_STEP):
                yield
            yield

    def close(self, error: Exception) -> None:
        """End every wait for a message with an error."""
        for mailbox in self._mailboxes.values():
            mailbox.close(error)
