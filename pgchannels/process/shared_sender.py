"""The verbs of `Sender` for event loops and threads without a node: one background sender serves all of them."""

from collections.abc import Awaitable, Sequence

from pgchannels.process.background import BackgroundSender
from pgchannels.sending.outgoing import Outgoing


class SharedSender:
    """For tasks of event loops; raises as `Sender` and as `BackgroundSender.send`."""

    def __init__(self, background: BackgroundSender) -> None:
        self._background = background

    def send(self, outgoing: Outgoing) -> Awaitable[int]:
        """See `Sender.send`."""
        return self._background.send(lambda sender: sender.send(outgoing))

    def send_many(self, outgoing: Sequence[Outgoing]) -> Awaitable[list[int]]:
        """See `Sender.send_many`."""
        return self._background.send(lambda sender: sender.send_many(outgoing))

    def database_name(self) -> Awaitable[str]:
        """See `Sender.database_name`."""
        return self._background.send(lambda sender: sender.database_name())

    def join(self, topic: str, channel: str) -> Awaitable[None]:
        """See `Sender.join`."""
        return self._background.send(lambda sender: sender.join(topic, channel))

    def leave(self, topic: str, channel: str) -> Awaitable[None]:
        """See `Sender.leave`."""
        return self._background.send(lambda sender: sender.leave(topic, channel))

    def flush(self) -> Awaitable[None]:
        """See `Sender.flush`; it waits for as long as nodes hold their leases."""
        return self._background.send(lambda sender: sender.flush(), is_patient=True)


class BlockingSender:
    """The same for threads without an event loop; each call blocks."""

    def __init__(self, background: BackgroundSender) -> None:
        self._background = background

    def send(self, outgoing: Outgoing) -> int:
        """See `Sender.send`."""
        return self._background.send_blocking(lambda sender: sender.send(outgoing))

    def send_many(self, outgoing: Sequence[Outgoing]) -> list[int]:
        """See `Sender.send_many`."""
        return self._background.send_blocking(lambda sender: sender.send_many(outgoing))

    def database_name(self) -> str:
        """See `Sender.database_name`."""
        return self._background.send_blocking(lambda sender: sender.database_name())

    def join(self, topic: str, channel: str) -> None:
        """See `Sender.join`."""
        self._background.send_blocking(lambda sender: sender.join(topic, channel))

    def leave(self, topic: str, channel: str) -> None:
        """See `Sender.leave`."""
        self._background.send_blocking(lambda sender: sender.leave(topic, channel))

    def flush(self) -> None:
        """See `Sender.flush`; it waits for as long as nodes hold their leases."""
        self._background.send_blocking(lambda sender: sender.flush(), is_patient=True)

    def remove_deaf_nodes(self) -> None:
        """See `Sender.remove_deaf_nodes`."""
        self._background.send_blocking(lambda sender: sender.remove_deaf_nodes())
