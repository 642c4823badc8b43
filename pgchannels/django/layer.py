"""The channel layer of Django Channels. Here a topic is called a group, as Channels calls it."""

import re
import threading
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final

from channels import exceptions
from channels.layers import BaseChannelLayer
from django.core import mail
from sqlalchemy import URL

from pgchannels.database.database import Database
from pgchannels.database.retry import until_there
from pgchannels.django import requests
from pgchannels.django.configuration import database_source
from pgchannels.django.sync import SyncChannelLayer
from pgchannels.errors import UnreadableMessage
from pgchannels.messages import Gap
from pgchannels.names import (
    DEFAULT_PREFIX,
    DEFAULT_SCHEMA,
    require_valid_channel,
)
from pgchannels.node import Node
from pgchannels.nodes import Nodes
from pgchannels.options import Options
from pgchannels.receiving.mailbox import Connection
from pgchannels.receiving.receiver import Received

_IDLE_SECONDS_IN_TESTS: Final = 0.5


class PostgresChannelLayer(BaseChannelLayer):
    """Channels' layer interface on PostgreSQL; connects when it is first used in an event loop.

    The database is given by `url`, by `database`, an alias of Django's `DATABASES`, or by the keys of such a database.
    Times are in seconds; `group_expiry=0` keeps members for as long as their process lives.

    `on_disconnect`, `on_reconnect` and `on_gap` are types of messages that this process's channels get when the
    listening connection was lost, when it is back, and when messages to the channel were lost, or may have been:
    `{"type": on_gap, "reason": "capacity" | "expired" | "crash" | "unreadable", "count": int | None}`.
    """

    extensions: Final = ["groups", "flush"]
    ChannelFull: Final = exceptions.ChannelFull
    MessageTooLarge: Final = exceptions.MessageTooLarge

    def __init__(
        self,
        url: str | None = None,
        *,
        database: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        expiry: float = 60,
        group_expiry: float = 0,
        capacity: int = 1000,
        channel_capacity: Mapping[str | re.Pattern[str], int] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] = (),
        serializer_format: str = "msgpack",
        schema: str = DEFAULT_SCHEMA,
        send_timeout: float = 30,
        heartbeat: float = 5,
        on_disconnect: str | None = None,
        on_reconnect: str | None = None,
        on_gap: str | None = None,
        **database_keys: Any,
    ) -> None:
        self._options = options = Options(
            prefix=prefix,
            expiry=expiry,
            group_expiry=group_expiry,
            capacity=capacity,
            channel_capacity={} if channel_capacity is None else channel_capacity,
            symmetric_encryption_keys=symmetric_encryption_keys,
            serializer_format=serializer_format,
            schema=schema,
            send_timeout=send_timeout,
            heartbeat=heartbeat,
            on_disconnect=on_disconnect,
            on_reconnect=on_reconnect,
            on_gap=on_gap,
        )
        figures: dict[str, Any] = {"expiry": options.expiry, "capacity": options.capacity}
        super().__init__(**figures, channel_capacity=dict(options.channel_capacity))
        self.group_expiry: float = options.group_expiry
        self._database = database_source(url, database, database_keys)
        self._lock = threading.Lock()
        self._used: tuple[Hashable, Nodes] | None = None

    def get_capacity(self, channel: str) -> int:
        """How many messages wait for a channel at most."""
        return self._options.capacity_of(channel)

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Send a message to a channel of any process, or to a queue."""
        request = requests.send(channel, message)
        node = self._nodes.here()
        with requests.errors_of_channels:
            if node is not None and node.receiver.owns(channel):
                await node.send(channel, message)
            else:
                await self._nodes.send(request)

    async def receive(self, channel: str) -> dict[str, Any]:
        """The next message of a channel; what was published to a group and is no dict is unreadable: a gap.

        A name that ends with '!' receives from all channels that begin so: `"__asgi_channel__"` in the message tells
        from which.
        """
        require_valid_channel(channel)
        # A worker may start before its database.
        if (node := self._nodes.here()) is None:
            node = await until_there(partial(self._nodes.open, in_any_case=True))
        if channel.endswith("!"):
            return await self._receive_any(node, channel)
        while (message := self._message_of(node, await node.receiver.receive(channel))) is None:
            pass
        return message

    async def new_channel(self, prefix: str = "specific") -> str:
        """The name of a new channel from which only this event loop receives."""
        node = await self._nodes.open(in_any_case=True)
        return node.receiver.new_channel(prefix)

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel of any process, or a queue, to a group."""
        request = requests.group_add(group, channel)
        node = self._nodes.here()
        if node is not None and node.receiver.owns(channel):
            await node.receiver.join(group, channel)
        else:
            await self._nodes.send(request)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group; nothing happens when it is not in it.

        Like an addition, one of another process's channel is lost when the server crashes before that process has heard
        it; the channel is told of a gap then.
        """
        await self._nodes.send(requests.group_discard(group, channel))

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to every channel in a group; those that are full drop it."""
        with requests.errors_of_channels:
            await self._nodes.send(requests.group_send(group, message))

    async def flush(self) -> None:
        """Delete every message and membership of the prefix. What a subscription has received already stays in it."""
        await self._nodes.send(requests.flush)

    async def close(self) -> None:
        """Send what waits, end every `receive` of this event loop, disconnect."""
        await self._nodes.close()

    async def _receive_any(self, node: Node, prefix: str) -> dict[str, Any]:
        while True:
            channel, item = await node.receiver.receive_any(prefix)
            if (message := self._message_of(node, item)) is not None:
                return message | {"__asgi_channel__": channel}

    def _message_of(self, node: Node, item: Received) -> dict[str, Any] | None:
        if isinstance(item, tuple):
            arrival, message = item
            if isinstance(message, dict):
                return message
            item = node.payloads.lose(arrival, UnreadableMessage("Channels takes a dict"))
        if isinstance(item, Gap):
            if self._options.on_gap:
                return {"type": self._options.on_gap, "reason": str(item.reason), "count": item.count}
        elif item is Connection.LOST:
            return {"type": self._options.on_disconnect}
        else:
            return {"type": self._options.on_reconnect}
        return None

    def database_url(self) -> str | URL:
        """Where its database is, by the settings as they are now: a test runner renames databases.

        :raises ConfigurationError: the settings name no PostgreSQL.
        """
        return self._database.url()

    def empty(self) -> None:
        """For tests, in a thread without an event loop: flush, not waiting for nodes of processes that were killed."""
        self._nodes.send_blocking(lambda sender: sender.remove_deaf_nodes())
        self.sync.flush()

    @cached_property
    def sync(self) -> SyncChannelLayer:
        """The verbs that send, for threads without an event loop."""
        return SyncChannelLayer(lambda: self._nodes)

    @property
    def _nodes(self) -> Nodes:
        key = self._database.key()
        used = self._used
        if used is None or used[0] != key:
            with self._lock:
                if self._used is None or self._used[0] != key:
                    self._used = (key, _new_nodes(self._database.open(), self._options))
                used = self._used
        return used[1]


def _new_nodes(database: Database, options: Options) -> Nodes:
    # Django's test runner drops the database at the end, which waits some seconds for connections to be gone.
    idle_seconds = _IDLE_SECONDS_IN_TESTS if hasattr(mail, "outbox") else None
    return Nodes(database, options, idle_seconds=idle_seconds)
