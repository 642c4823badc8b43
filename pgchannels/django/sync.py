"""The methods of the channel layer that send, for threads without an event loop."""

from collections.abc import Callable
from typing import Any

from pgchannels.django import requests
from pgchannels.django.transactions import FROM_SETTINGS, Transactions, Using
from pgchannels.names import require_valid_channel
from pgchannels.servers.engine import Engine


class SyncChannelLayer:
    """`channel_layer.sync`: for views, signals, commands and tasks; without `async_to_sync` or an event loop per call.

    Each call returns when it is done in the database, uses a connection that the whole process shares, and raises the
    same errors as its asynchronous twin.

    :raises WouldBlock: an event loop is running in this thread.
    """

    def __init__(self, process: Callable[[], Engine], transactions: Transactions) -> None:
        self._process = process
        self._transactions = transactions

    def send(self, channel: str, message: dict[str, Any], *, using: Using = FROM_SETTINGS) -> None:
        """Send a message to a channel of any process, or to a queue; `using` as for `group_send`."""
        process = self._process()
        with requests.errors_of_channels:
            packed = requests.to_channel(process.packer, channel, message)
            if not self._transactions.join(process, [packed], using):
                process.blocking_sender().send(packed)

    def group_send(
        self, group: str, message: dict[str, Any], *, exclude: str | None = None, using: Using = FROM_SETTINGS
    ) -> None:
        """Send a message to every channel in a group; full channels are skipped.

        :param exclude: a channel that does not get the message.
        :param using: an alias of `DATABASES`. Inside an `atomic()` block of that database, the message is delivered
            when the block commits, and only then. None: at once. By default, what `using` in the layer's settings says.
        """
        process = self._process()
        with requests.errors_of_channels:
            packed = requests.to_group(process.packer, group, message, exclude)
            if not self._transactions.join(process, [packed], using):
                process.blocking_sender().send(packed)

    def group_add(self, group: str, channel: str) -> None:
        """Add a channel of any process, or a queue, to a group."""
        group = requests.require_valid_group(group)
        channel = require_valid_channel(channel)
        self._process().blocking_sender().join(group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group; does nothing if it is not a member."""
        group = requests.require_valid_group(group)
        channel = require_valid_channel(channel)
        self._process().blocking_sender().leave(group, channel)

    def flush(self) -> None:
        """Delete every message and membership of the prefix."""
        self._process().blocking_sender().flush()

    def close(self) -> None:
        """Send what is waiting and disconnect, as happens when the process ends. The next call connects again."""
        self._process().stop_background()
