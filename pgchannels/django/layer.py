"""The channel layer of Django Channels. Here a topic is called a group, as Channels calls it."""

import asyncio
import logging
import re
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Final, Literal

from channels import exceptions
from channels.consumer import AsyncConsumer
from channels.layers import BaseChannelLayer
from channels.worker import Worker
from django.apps import apps
from django.conf import settings
from django.core import mail
from django.utils.module_loading import import_string
from sqlalchemy import URL

from pgchannels.arguments import redacted, require_callable_or_none, require_count, require_one_of, shown
from pgchannels.database.retry import until_there
from pgchannels.django import requests
from pgchannels.django.database_url import database_source, require_alias
from pgchannels.django.dispatch import reason_against
from pgchannels.django.servers import ServersInSettings
from pgchannels.django.sync import SyncChannelLayer
from pgchannels.django.transactions import FROM_SETTINGS, Transactions, Using
from pgchannels.errors import ConfigurationError, LayerClosed, UnreadableMessage
from pgchannels.messages import Gap
from pgchannels.names import (
    DEFAULT_PREFIX,
    DEFAULT_SCHEMA,
    require_valid_channel,
)
from pgchannels.options import Options
from pgchannels.points import PointOrText
from pgchannels.process.node import Node
from pgchannels.receiving.mailbox import ListenerState, WhenFull
from pgchannels.receiving.payloads import Opened
from pgchannels.receiving.receiver import Received
from pgchannels.servers.engine import Engine, subscription_on
from pgchannels.servers.nodes import Nodes
from pgchannels.servers.placement import Pins
from pgchannels.servers.targets import ServerTargets
from pgchannels.subscription import Subscription

_IDLE_SECONDS_IN_TESTS: Final = 0.5

logger: logging.Logger = logging.getLogger("pgchannels")


class PostgresChannelLayer(BaseChannelLayer):
    """Channels' layer interface on PostgreSQL; connects when it is first used in an event loop.

    The database is given by `url`, by `database`, an alias of Django's `DATABASES`, or by the keys of such a database;
    several servers by `databases`, a list of aliases, or by `urls`, with `pinned` and `also_receive_from` as for
    `MessageLayer`. Times are in seconds; `group_expiry=0` keeps members for as long as their process lives.

    With `using`, an alias of `DATABASES`, what is sent inside an `atomic()` block of that database is delivered when
    the block commits, and only then.

    `default` is a function, or its dotted path, that returns a replacement for a value that no message can carry.
    `on_disconnect`, `on_reconnect` and `on_gap` are types of messages that this process's channels get when the
    listening connection is lost, when it is back, and when messages to the channel were lost, or may have been:
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
        symmetric_encryption_keys: Sequence[str | bytes] | None = (),
        serializer_format: str = "msgpack",
        default: Callable[[Any], Any] | str | None = None,
        schema: str = DEFAULT_SCHEMA,
        send_timeout: float = 30,
        heartbeat: float = 5,
        poll: float | None = None,
        listen_url: str | URL | None = None,
        connections: int = 3,
        on_disconnect: str | None = None,
        on_reconnect: str | None = None,
        on_gap: str | None = None,
        unsealed_topics: Sequence[str | re.Pattern[str]] | None = (),
        using: str | None = None,
        databases: Sequence[str] | None = None,
        urls: ServerTargets | None = None,
        pinned: Pins | None = None,
        also_receive_from: ServerTargets | None = None,
        also_pinned: Pins | None = None,
        **database_keys: Any,
    ) -> None:
        default = _imported("default", default)
        self._options = options = Options.among(locals(), upgrade_advice=partial(_upgrade_advice, weakref.ref(self)))
        for name, kind in (("on_disconnect", on_disconnect), ("on_reconnect", on_reconnect), ("on_gap", on_gap)):
            if kind is not None and (reason := reason_against({"type": kind})) is not None:
                raise ConfigurationError(f"{name}: {reason}")
        figures: dict[str, Any] = {"expiry": options.expiry, "capacity": options.capacity}
        super().__init__(**figures, channel_capacity=dict(options.channel_capacity))
        self.group_expiry: float = options.group_expiry
        if using is not None:
            require_alias("using", using)
        self._transactions = Transactions(using)
        self._databases = ServersInSettings(
            database_source(url, database, database_keys) if databases is None and urls is None else None,
            given={"url": url, "database": database, **database_keys},
            databases=databases,
            urls=urls,
            pinned=pinned,
            also_receive_from=also_receive_from,
            also_pinned=also_pinned,
            listen_url=listen_url,
        )
        self._lock = threading.Lock()
        self._used: tuple[Hashable, Engine] | None = None
        self._consumers: dict[str, type] = {}  # by their channels

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait for a channel."""
        return self._options.capacity_of(channel)

    async def send(self, channel: str, message: dict[str, Any], *, using: Using = FROM_SETTINGS) -> None:
        """Send a message to a channel of any process, or to a queue; `using` as for `group_send`."""
        process = self._process
        with requests.errors_of_channels:
            packed = requests.to_channel(process.packer, channel, message)
            if not await self._transactions.join_async(process, [packed], using):
                await process.sender_for(channel).send(packed)

    async def receive(self, channel: str) -> dict[str, Any]:
        """The next message of a channel.

        A message that Channels cannot dispatch counts as unreadable, which is a gap. It is skipped if it was published
        to a group, or if a consumer or a worker of Channels receives.

        A name that ends with '!' receives from all channels that begin with it; `"__asgi_channel__"` in the message
        says from which.
        """
        channel = require_valid_channel(channel)
        # A worker may start before its database.
        node: Node | Nodes | None = self._process.here()
        if node is None:
            node = await until_there(self._opened)
        if channel.endswith("!"):
            return await self._receive_any(node, channel)
        consumer = self._consumers.get(channel)
        while True:
            item = await node.receive(channel)
            if (message := self._message_of(node, item, consumer)) is not None:
                return message

    async def new_channel(self, prefix: str = "specific") -> str:
        """The name of a new channel from which only this event loop receives."""
        caller = sys._getframe(1)
        node = await self._process.open(in_any_case=True)
        channel = node.new_channel(prefix)
        if caller.f_code is AsyncConsumer.__call__.__code__:
            consumer = caller.f_locals["self"]
            self._consumers[channel] = type(consumer)
            gone = partial(self._forget_consumer, channel, node, asyncio.get_running_loop())
            weakref.finalize(consumer, gone).atexit = False
        return channel

    async def group_add(self, group: str, channel: str) -> None:
        """Add a channel of any process, or a queue, to a group."""
        group = requests.require_valid_group(group)
        channel = require_valid_channel(channel)
        await self._process.sender_for(channel).join(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a channel from a group; does nothing if it is not a member.

        Like an addition, the removal of another process's channel is lost if the server crashes before that process has
        received it; the channel then gets a gap.
        """
        group = requests.require_valid_group(group)
        channel = require_valid_channel(channel)
        await self._process.sender().leave(group, channel)

    async def group_send(
        self, group: str, message: dict[str, Any], *, exclude: str | None = None, using: Using = FROM_SETTINGS
    ) -> None:
        """Send a message to every channel in a group; full channels are skipped.

        :param exclude: a channel that does not get the message.
        :param using: an alias of `DATABASES`. If the code that calls this through `async_to_sync` is inside an
            `atomic()` block of that database, the message is delivered when the block commits, and only then. None:
            at once. By default, what `using` in the layer's settings says.
        """
        process = self._process
        with requests.errors_of_channels:
            packed = requests.to_group(process.packer, group, message, exclude)
            if not await self._transactions.join_async(process, [packed], using):
                await process.sender().send(packed)

    async def subscribe(
        self,
        *groups: str,
        since: PointOrText | None = None,
        capacity: int | None = None,
        when_full: Literal["fail", "drop_newest", "drop_oldest"] = "fail",
        on_gap: Callable[[Gap], None] | None = None,
    ) -> Subscription:
        """Return a subscription to groups, for code that is no consumer; the same as that of `MessageLayer.subscribe`.

        `async with await channel_layer.subscribe("room") as subscription:`. Unlike consumers, it gets every message,
        also one that Channels could not dispatch.
        """
        if not groups:
            raise ConfigurationError("subscribe needs at least one group")
        valid = tuple(dict.fromkeys(requests.require_valid_group(group) for group in groups))
        subscription = subscription_on(
            self._process,
            self._node_here,
            valid,
            since=since,
            capacity=self._options.capacity if capacity is None else require_count("capacity", capacity),
            when_full=require_one_of("when_full", when_full, WhenFull),
            on_gap=require_callable_or_none("on_gap", on_gap),
        )
        await self._process.open(in_any_case=True)
        return subscription

    async def flush(self) -> None:
        """Delete every message and membership of the prefix. A subscription keeps what it has already received."""
        await self._process.sender().flush()

    async def close(self) -> None:
        """Send what is waiting, end every `receive` of this event loop, and disconnect."""
        await self._process.close()

    async def _opened(self) -> Node | Nodes:
        return await self._process.open(in_any_case=True)

    def _node_here(self) -> Node | Nodes:
        node = self._process.here()
        if node is None:
            raise LayerClosed("the channel layer was closed in this event loop, or has failed: subscribe again")
        return node

    def _forget_consumer(self, channel: str, node: Node | Nodes, loop: asyncio.AbstractEventLoop) -> None:
        # A server cancels a consumer that takes too long to end; it then cannot leave its groups itself.
        self._consumers.pop(channel, None)
        with suppress(RuntimeError):  # the loop is closed, and the node with it
            loop.call_soon_threadsafe(node.release, channel)

    async def _receive_any(self, node: Node | Nodes, prefix: str) -> dict[str, Any]:
        while True:
            channel, item = await node.receive_any(prefix)
            if (message := self._message_of(node, item)) is not None:
                return message | {"__asgi_channel__": channel}

    def _message_of(self, node: Node | Nodes, item: Received, consumer: type | None = None) -> dict[str, Any] | None:
        if isinstance(item, Opened):
            reason = reason_against(item.payload, consumer=consumer)
            if reason is not None and not (item.arrival.is_of_topic or consumer is not None or _is_called_by_worker()):
                reason = reason_against(item.payload, is_dispatched=False)
            if reason is None:
                taken: dict[str, Any] = item.payload
                return taken
            item = node.payloads.lose(item.arrival, UnreadableMessage(reason))
        if isinstance(item, Gap):
            if self._options.on_gap:
                return {"type": self._options.on_gap, "reason": str(item.reason), "count": item.count}
        elif item is ListenerState.LOST:
            return {"type": self._options.on_disconnect}
        else:
            return {"type": self._options.on_reconnect}
        return None

    def database_url(self) -> str | URL:
        """Where its database, or its first server, is by the current settings: a test runner renames databases.

        :raises ConfigurationError: the settings do not name a PostgreSQL database.
        """
        return next(iter(self._databases.urls().values()))

    def database_urls(self) -> dict[str, str | URL]:
        """As `database_url`, for each server by its name; the name is empty for the only database of a layer."""
        return self._databases.urls()

    def empty(self) -> None:
        """For tests, in a thread without an event loop: flush without waiting for the nodes of killed processes."""
        self._process.blocking_sender().remove_deaf_nodes()
        self.sync.flush()

    @cached_property
    def sync(self) -> SyncChannelLayer:
        """The methods that send, for threads without an event loop."""
        return SyncChannelLayer(lambda: self._process, self._transactions)

    @property
    def _process(self) -> Engine:
        key = self._databases.key()
        used = self._used
        if used is None or used[0] != key:
            with self._lock:
                if self._used is None or self._used[0] != key:
                    self._used = (key, _new_engine(self._databases, self._options))
                used = self._used
        return used[1]


def _upgrade_advice(layer: "weakref.ref[PostgresChannelLayer]") -> str:
    from pgchannels.django.upgrading import advice_for  # which imports this module

    return advice_for(layer())


def _warn_of_missing_app() -> None:
    # Without the app, perhaps nothing imports this package, and `manage.py check` cannot report the missing app.
    if not apps.ready or apps.is_installed("pgchannels.django"):
        return
    if "pgchannels.W002" not in settings.SILENCED_SYSTEM_CHECKS:
        logger.warning(
            "pgchannels.W002: 'pgchannels.django' is not in INSTALLED_APPS: `manage.py migrate` does not create the"
            " tables of the channel layer, and `manage.py check` does not look for them. Add it, or silence this in"
            " SILENCED_SYSTEM_CHECKS"
        )


def _is_called_by_worker() -> bool:
    # A message without a type would silently end a worker's listener; other callers may receive any dict.
    task = asyncio.current_task()
    return task is not None and getattr(task.get_coro(), "cr_code", None) is Worker.listener.__code__


def _new_engine(databases: ServersInSettings, options: Options) -> Engine:
    _warn_of_missing_app()
    # Django's test runner drops the database at the end, which waits a few seconds for connections to close.
    idle_seconds = _IDLE_SECONDS_IN_TESTS if hasattr(mail, "outbox") else None
    return databases.engine(options, idle_seconds=idle_seconds)


def _imported(option: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except (ImportError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{option}={shown(value)} is not the dotted path of a function: {redacted(str(error)):.100}"
        ) from error
