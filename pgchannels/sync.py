"""The sending methods of a layer, for code without an event loop."""

from collections.abc import Iterable
from typing import Any

from pgchannels.arguments import require_pairs
from pgchannels.messages import Position
from pgchannels.names import require_valid_channel, require_valid_topic
from pgchannels.process.process import Process


class SyncMessageLayer:
    """`layer.sync`: sends from any thread without a running event loop, over one connection for the whole process.

    Each call waits until its message is in the database, and raises the same errors as its asynchronous twin.

    :raises WouldBlock: an event loop is running in this thread.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    def publish(self, topic: str, payload: Any) -> Position:
        """Publish a payload to a topic."""
        topic = require_valid_topic(topic)
        return Position.from_id(self._process.blocking_sender().publish(topic, payload))

    def publish_many(self, messages: Iterable[tuple[str, Any]]) -> list[Position]:
        """Publish payloads to topics in this order, with few round trips."""
        pairs = require_pairs("messages", messages, of="a topic and a payload")
        checked = [(require_valid_topic(topic), payload) for topic, payload in pairs]
        ids = self._process.blocking_sender().publish_many(checked)
        return [Position.from_id(message_id) for message_id in ids]

    def send(self, channel: str, payload: Any) -> Position:
        """Send a payload to a channel."""
        channel = require_valid_channel(channel)
        return Position.from_id(self._process.blocking_sender().send(channel, payload))

    def close(self) -> None:
        """Send pending messages and close the connection; the next call reconnects. Process exit does this, too."""
        self._process.stop_background()
