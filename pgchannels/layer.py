"""The plain API: publish/subscribe on topics, channels and work queues."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from pgchannels.arguments import (
    DAY,
    require_callable_or_none,
    require_count,
    require_one_of,
    require_pairs,
    require_seconds,
)
from pgchannels.database.database import Database, Password
from pgchannels.database.retry import until_there
from pgchannels.database.url import DatabaseTarget
from pgchannels.errors import ConfigurationError, LayerClosed, MessagesLost
from pgchannels.messages import Gap, Message, Position, Positions
from pgchannels.names import (
    DEFAULT_PREFIX,
    DEFAULT_SCHEMA,
    require_valid_channel,
    require_valid_topic,
)
from pgchannels.options import Options
from pgchannels.process.node import Node
from pgchannels.process.process import Process
from pgchannels.receiving.mailbox import WhenFull
from pgchannels.receiving.payloads import Opened
from pgchannels.subscription import Subscription, message_from, require_since
from pgchannels.sync import SyncMessageLayer


class MessageLayer:
    """A message layer in a PostgreSQL database.

    Create one per process, at import if you like: it connects when it is opened. Each event loop that receives opens it
    with `async with layer:`. Sending works from any loop and thread, whether the layer is open there or not::

        layer = MessageLayer("postgresql://user:password@localhost/mydb")

        async with layer, layer.subscribe("room") as subscription:
            await layer.publish("room", {"text": "Hello"})
            async for message in subscription:
                print(message.payload)

    Times are in seconds.

    :param database: a URL, a SQLAlchemy URL, or an `AsyncEngine`, whose settings are used for connections of the
        layer's own.
    :param password: replaces that of the URL. For passwords that change, such as a cloud provider's tokens: a function
        or coroutine function, called for each connection. A plain function runs in a thread, so it may block.
    :param prefix: layers with different prefixes share the tables and do not receive each other's messages.
    :param expiry: how long a message can be received or replayed.
    :param group_expiry: after this time, a channel is removed from a group unless re-added; with 0 it stays as long as
        its process lives, a work queue forever.
    :param capacity: how many messages may wait for one receiver, or in a work queue.
    :param channel_capacity: capacities of channels by pattern, such as `{"thumbnails.*": 50}`; the first match counts.
        A compiled regular expression is a pattern, too.
    :param symmetric_encryption_keys: keys for AES-256-GCM. The first encrypts, all decrypt.
    :param serializer_format: `"msgpack"`, `"json"`, or the name of a registered format, to send in; all are read.
    :param default: called with each value that no message can carry; returns a value to carry instead, as in
        `json.dumps`.
    :param schema: the schema of the tables.
    :param send_timeout: how long a send waits for the database before it raises `DatabaseUnavailable`.
    :param heartbeat: time between probes of the listening connection; one that has gone deaf is replaced within twice
        that time.
    :raises ConfigurationError: an option has an impossible value; the text names it.
    :raises InvalidName: the prefix or the schema has an impossible name.
    """

    def __init__(
        self,
        database: DatabaseTarget,
        *,
        password: Password | None = None,
        prefix: str = DEFAULT_PREFIX,
        expiry: float = 60,
        group_expiry: float = 0,
        capacity: int = 1000,
        channel_capacity: Mapping[str | re.Pattern[str], int] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = (),
        serializer_format: str = "msgpack",
        default: Callable[[Any], Any] | None = None,
        schema: str = DEFAULT_SCHEMA,
        send_timeout: float = 30,
        heartbeat: float = 5,
    ) -> None:
        self._options = Options.among(locals())
        self._process = Process(Database(database, password=password), self._options)
        self.sync: SyncMessageLayer = SyncMessageLayer(self._process)

    async def open(self, *, wait: float = 0) -> None:
        """Connect and start receiving in this event loop; do nothing if the layer is already open here.

        `wait` is how many seconds to keep retrying while the database or its tables do not exist yet; every few seconds
        the layer logs what it waits for.

        A layer that failed here because of a defect is reopened.

        :raises SchemaMissing: the database has no pgchannels tables; the text names the command that creates them.
        :raises SchemaOutdated: the tables are older than this version.
        :raises DatabaseUnavailable: the database cannot be reached.
        :raises DatabaseRefused: the database answers with an error, such as a wrong password or a missing privilege.
        """
        await until_there(self._process.open, seconds=require_seconds("wait", wait, most=DAY, or_zero=True))

    async def close(self) -> None:
        """Send pending messages, end every subscription and `receive` of this event loop, and disconnect."""
        await self._process.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def publish(self, topic: str, payload: Any) -> Position:
        """Publish a payload to a topic; the message is in the database when this returns.

        Cancelling the call does not take the message back.

        :raises InvalidMessage: the payload holds a value that no message can carry.
        :raises MessageTooLarge: the payload takes more than 64 MiB.
        :raises DatabaseUnavailable: the database did not answer within `send_timeout`.
        :raises DatabaseRefused: the database answered with an error that a retry would not fix.
        :raises LayerClosed: the layer was closed meanwhile.

        The `may_have_been_sent` of the last three says whether the message may be in the database anyway.
        """
        topic = require_valid_topic(topic)
        return Position.from_id(await self._process.sender().publish(topic, payload))

    async def publish_many(self, messages: Iterable[tuple[str, Any]]) -> list[Position]:
        """Publish payloads to topics in this order, with few round trips; raises the same errors as `publish`.

        Not all or nothing: if the database fails partway, the first messages may have been published.
        """
        pairs = require_pairs("messages", messages, of="a topic and a payload")
        checked = [(require_valid_topic(topic), payload) for topic, payload in pairs]
        ids = await self._process.sender().publish_many(checked)
        return [Position.from_id(message_id) for message_id in ids]

    def subscribe(
        self,
        *topics: str,
        since: Position | Positions | str | None = None,
        capacity: int | None = None,
        when_full: Literal["fail", "drop_newest", "drop_oldest"] = "fail",
        on_gap: Callable[[Gap], None] | None = None,
    ) -> Subscription:
        """Return a subscription to topics: from now on or, with `since`, all after it that the log still has.

        At most `capacity` messages wait for a slow subscriber. When the mailbox is full, `"fail"` ends the subscription
        with `MessagesLost`; `"drop_newest"` and `"drop_oldest"` drop messages and count them in `subscription.lost`. If
        messages were lost for another reason, or may have been, the iteration raises `MessagesLost` once and continues.
        With `on_gap`, that function is called instead, also for dropped messages.

        `since` takes a message's position or, for several topics, a subscription's `position`; and the text of either.
        """
        if not topics:
            raise ConfigurationError("subscribe needs at least one topic")
        return Subscription(
            self._node_here,
            tuple(dict.fromkeys(require_valid_topic(topic) for topic in topics)),
            since=since,
            capacity=self._options.capacity if capacity is None else require_count("capacity", capacity),
            when_full=require_one_of("when_full", when_full, WhenFull),
            on_gap=require_callable_or_none("on_gap", on_gap),
        )

    async def history(self, topic: str, *, since: Position | str | None = None, limit: int = 100) -> list[Message]:
        """Return messages still in the log, oldest first: the last `limit`, or the first `limit` after `since`."""
        topic = require_valid_topic(topic)
        position, limit = require_since(since), require_count("limit", limit, least=0)
        node = self._node_here()
        after = None if position is None else position.of(topic).to_id()
        arrivals = await node.history(topic, after=after, limit=limit)
        return [message_from(opened) for opened in node.receiver.payloads.readable(arrivals)]

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel from which only this event loop receives."""
        return self._node_here().receiver.new_channel(prefix)

    async def send(self, channel: str, payload: Any) -> Position:
        """Send a payload to a channel: to its one receiver or, without a '!', to exactly one of its receivers.

        Raises the same errors as `publish`, and `ChannelFull` if as many messages as its capacity already wait for
        the channel. A message that nobody receives within `expiry` is gone.
        """
        channel = require_valid_channel(channel)
        return Position.from_id(await self._process.sender_for(channel).send(channel, payload))

    async def receive(self, channel: str, *, on_gap: Callable[[Gap], None] | None = None) -> Any:
        """Return the next payload of a channel; wait for one if there is none. Cancelling the call loses nothing.

        Concurrent calls share the messages: each goes to the call that has waited longest.

        :raises MessagesLost: messages to this channel were lost, or may have been; the next call continues after them.
            With `on_gap`, that function is called instead.
        :raises LayerClosed: the channel belongs to another event loop or process, or the layer was closed.
        """
        channel = require_valid_channel(channel)
        require_callable_or_none("on_gap", on_gap)
        if self._process.here() is None:
            await asyncio.sleep(0)  # a loop that keeps calling this lets other tasks run
        node = self._node_here()
        while True:
            item = await node.receiver.receive(channel)
            if isinstance(item, Opened):
                return item.payload
            if isinstance(item, Gap):
                if on_gap is None:
                    raise MessagesLost(item)
                on_gap(item)

    def _node_here(self) -> Node:
        node = self._process.here()
        if node is None:
            raise LayerClosed(
                "the layer is not open in this event loop, or has failed: `async with layer:` or `await layer.open()`"
            )
        return node
