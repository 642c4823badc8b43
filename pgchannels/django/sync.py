"""The verbs of the channel layer that send, without an event loop."""

from collections.abc import Callable
from typing import Any

from pgchannels.django import requests
from pgchannels.process.process import Nodes


class SyncChannelLayer:
    """`channel_layer.sync`: for views, signals, commands and tasks; no `async_to_sync`, no event loop a call.

    Each call waits until it is done in the database, by a connection that the whole process shares, and raises as its
    asynchronous twin does.

    :raises WouldBlock: an event loop runs in this thread.
    """

    def __init__(self, nodes: Callable[[], Nodes]) -> None:
        self._nodes = nodes

    def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to a channel of any process, or to a queue."""
        self._run(requests.send(channel, message))

    def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to every channel in a group; those that are full drop it."""
        self._run(requests.group_send(group, message))

    def group_add(self, group: str, channel: str) -> None:
        """Add a channel of any process, or a queue, to a group."""
        self._run(requests.group_add(group, channel))

    def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group; nothing happens when it is not in it."""
        self._run(requests.group_discard(group, channel))

    def flush(self) -> None:
        """Delete every message and membership of the prefix."""
        self._run(requests.flush)

    def close(self) -> None:
        """Send what waits and give the connection back; the end of the process does it, too. The next call connects."""
        self._nodes().stop_background()

    def _run(self, request: requests.Request) -> None:
        with requests.errors_of_channels:
            self._nodes().send_blocking(request)
