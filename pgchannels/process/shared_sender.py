"""The verbs of `Sender` for event loops and threads without a node: one background sender serves all of them."""

from collections.abc import Awaitable, Sequence
from typing import Any

from pgchannels.process.background import BackgroundSender


class SharedSender:
    """For tasks of event loops; raises as `Sender` and as `BackgroundSender.send`."""

    def __init__(self, background: BackgroundSender) -> None:
        self._background = background

    def publish(self, topic: str, payload: Any) -> Awaitable[int]:
        """See `Sender.publish`."""
        return self._background.send(lambda sender: sender.publish(topic, payload))

    def publish_many(self, messages: Sequence[tuple[str, Any]]) -> Awaitable[list[int]]:
        """See `Sender.publish_many`."""
        return self._background.send(lambda sender: sender.publish_many(messages))

    def send(self, channel: str, payload: Any) -> Awaitable[int]:
        """See `Sender.send`."""
        return self._background.send(lambda sender: sender.send(channel, payload))

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

    def publish(self, topic: str, payload: Any) -> int:
        """See `Sender.publish`."""
        return self._background.send_blocking(lambda sender: sender.publish(topic, payload))

    def publish_many(self, messages: Sequence[tuple[str, Any]]) -> list[int]:
        """See `Sender.publish_many`."""
        return self._background.send_blocking(lambda sender: sender.publish_many(messages))

    def send(self, channel: str, payload: Any) -> int:
        """See `Sender.send`."""
        return self._background.send_blocking(lambda sender: sender.send(channel, payload))

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
