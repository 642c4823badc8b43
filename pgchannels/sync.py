"""The verbs of a layer that send, without an event loop."""

from collections.abc import Iterable
from typing import Any

from pgchannels.arguments import require_pairs
from pgchannels.messages import Position
from pgchannels.names import require_valid_channel, require_valid_topic
from pgchannels.process.process import Process


class SyncMessageLayer:
    """`layer.sync`: sends from any thread in which no event loop runs, by a connection that the whole process shares.

    Each call waits until its message is in the database, and raises as its asynchronous twin does.

    :raises WouldBlock: an event loop runs in this thread.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    def publish(self, topic: str, payload: Any) -> Position:
        """Publish a payload to a topic."""
        require_valid_topic(topic)
        return Position.from_id(self._process.blocking_sender().publish(topic, payload))

    def publish_many(self, messages: Iterable[tuple[str, Any]]) -> list[Position]:
        """Publish payloads to topics in this order, with few round trips."""
        pairs = require_pairs("messages", messages, of="a topic and a payload")
        checked = [(require_valid_topic(topic), payload) for topic, payload in pairs]
        ids = self._process.blocking_sender().publish_many(checked)
        return [Position.from_id(message_id) for message_id in ids]

    def send(self, channel: str, payload: Any) -> Position:
        """Send a payload to a channel."""
        require_valid_channel(channel)
        return Position.from_id(self._process.blocking_sender().send(channel, payload))

    def close(self) -> None:
        """Send what waits and give the connection back; the end of the process does it, too. The next call connects."""
        self._process.stop_background()
