"""The plain API: publish/subscribe on topics, channels and work queues."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Literal, Self, overload

from sqlalchemy import URL

from pgchannels.arguments import (
    DAY,
    TEN_YEARS,
    require_callable_or_none,
    require_count,
    require_one_of,
    require_seconds,
)
from pgchannels.database.callers import AsyncExecutor
from pgchannels.database.database import Password
from pgchannels.database.retry import until_there
from pgchannels.database.url import DatabaseTarget
from pgchannels.errors import ConfigurationError, LayerClosed, MessagesLost
from pgchannels.messages import Gap, Header, Message, Position
from pgchannels.names import (
    DEFAULT_PREFIX,
    DEFAULT_SCHEMA,
    require_claimable,
    require_valid_channel,
    require_valid_topic,
)
from pgchannels.options import Options
from pgchannels.points import PointOrText
from pgchannels.process.node import Node
from pgchannels.receiving.mailbox import WhenFull
from pgchannels.receiving.payloads import Opened
from pgchannels.servers.engine import engine_of, subscription_on
from pgchannels.servers.nodes import Nodes
from pgchannels.servers.targets import ServerTargets
from pgchannels.subscription import Subscription, message_from
from pgchannels.sync import SyncMessageLayer
from pgchannels.work import Work, working


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
        layer's own. A dict of names and such databases, or a list of them, makes a layer with several servers.
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
    :param unsealed_topics: patterns of topics, such as `"orders.*"`, whose messages are accepted unencrypted although
        there are keys, as SQL sends them. In others, such a message is skipped, counted and reported as a gap.
    :param serializer_format: `"msgpack"`, `"json"`, or the name of a registered format, to send in; all are read.
    :param default: called with each value that no message can carry; returns a value to carry instead, as in
        `json.dumps`.
    :param schema: the schema of the tables.
    :param send_timeout: how long a send waits for the database before it raises `DatabaseUnavailable`.
    :param heartbeat: time between probes of the listening connection; one that has gone deaf is replaced within twice
        that time.
    :param poll: ask the log at least every so many seconds, more often while messages arrive, in place of LISTEN. Works
        through any pooler that gives each transaction a session; needs `expiry` of twice that time.
    :param listen_url: a direct URL of the same database for LISTEN, if the other one leads through such a pooler. Not
        with several servers.
    :param connections: of each event loop that receives, to each server: 3, or 2 to send on the connection that also
        reads and claims. Sends and reads then wait for each other; heartbeats wait for neither.
    :param pinned: with several servers, the server of topics by pattern, such as `{"orders.*": "a"}`; the first match
        counts. All other topics are placed by their names.
    :param also_receive_from: with several servers, those among which other processes place topics while servers are
        added or removed.
    :param also_pinned: with several servers, `pinned` of other processes while it changes.
    :raises ConfigurationError: an option has an impossible value; the text names it.
    :raises InvalidName: the prefix or the schema has an impossible name.
    """

    def __init__(
        self,
        database: DatabaseTarget | ServerTargets,
        *,
        password: Password | None = None,
        prefix: str = DEFAULT_PREFIX,
        expiry: float = 60,
        group_expiry: float = 0,
        capacity: int = 1000,
        channel_capacity: Mapping[str | re.Pattern[str], int] | None = None,
        symmetric_encryption_keys: Sequence[str | bytes] | None = (),
        unsealed_topics: Sequence[str | re.Pattern[str]] | None = (),
        serializer_format: str = "msgpack",
        default: Callable[[Any], Any] | None = None,
        schema: str = DEFAULT_SCHEMA,
        send_timeout: float = 30,
        heartbeat: float = 5,
        poll: float | None = None,
        listen_url: str | URL | None = None,
        connections: int = 3,
        pinned: Mapping[str | re.Pattern[str], str] | None = None,
        also_receive_from: ServerTargets | None = None,
        also_pinned: Mapping[str | re.Pattern[str], str] | None = None,
    ) -> None:
        self._options = Options.among(locals())
        self._process = engine_of(
            database,
            self._options,
            password=password,
            pinned=pinned,
            also_receive_from=also_receive_from,
            also_pinned=also_pinned,
        )
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

    @overload
    async def publish(
        self,
        topic: str,
        payload: Any,
        *,
        headers: Mapping[str, Header] | None = None,
        key: str | None = None,
        expiry: float | None = None,
        connection: None = None,
    ) -> Position: ...

    @overload
    async def publish(
        self,
        topic: str,
        payload: Any,
        *,
        headers: Mapping[str, Header] | None = None,
        key: str | None = None,
        expiry: float | None = None,
        connection: AsyncExecutor,
    ) -> None: ...

    async def publish(
        self,
        topic: str,
        payload: Any,
        *,
        headers: Mapping[str, Header] | None = None,
        key: str | None = None,
        expiry: float | None = None,
        connection: AsyncExecutor | None = None,
    ) -> Position | None:
        """Publish a payload to a topic; the message is in the database when this returns.

        With `connection`, the message belongs to the transaction of that connection: it is delivered when the
        transaction commits, and only then. Its position is not known before, so the call returns None. The connection
        is an `AsyncConnection` or `AsyncSession` of SQLAlchemy, or one of asyncpg or psycopg.

        Cancelling the call does not take the message back.

        :param headers: up to 4096 bytes beside the payload, such as a trace context: `message.headers`.
        :param key: while the log keeps this message, another one to this topic with the same key is not delivered; a
            retry gets the position of the first. At most 200 characters.
        :param expiry: for how many seconds the message can be received, in place of the layer's `expiry`.
        :raises InvalidMessage: the payload or a header holds a value that no message can carry.
        :raises MessageTooLarge: the payload takes more than 64 MiB, or the headers more than 4096 bytes.
        :raises ConfigurationError: the connection is to another database, or of an unknown kind.
        :raises DatabaseUnavailable: the database did not answer within `send_timeout`.
        :raises DatabaseRefused: the database answered with an error that a retry would not fix.
        :raises LayerClosed: the layer was closed meanwhile.

        The `may_have_been_sent` of the last three says whether the message may be in the database anyway.
        """
        topic = require_valid_topic(topic)
        message = self._process.packer.to_topic(topic, payload, headers=headers, key=key, expiry=expiry)
        if connection is None:
            return self._process.position_of(message, await self._process.sender().send(message))
        await self._process.enqueue([message], connection)
        return None

    @overload
    async def publish_many(self, messages: Iterable[tuple[str, Any]], *, connection: None = None) -> list[Position]: ...

    @overload
    async def publish_many(self, messages: Iterable[tuple[str, Any]], *, connection: AsyncExecutor) -> None: ...

    async def publish_many(
        self, messages: Iterable[tuple[str, Any]], *, connection: AsyncExecutor | None = None
    ) -> list[Position] | None:
        """Publish payloads to topics in this order, with few round trips; raises the same errors as `publish`.

        With `connection`, all belong to its transaction, as for `publish`. Without, it is not all or nothing: if the
        database fails partway, the first messages may have been published.
        """
        packed = self._process.packer.to_topics(messages)
        if connection is None:
            sent = await self._process.sender().send_many(packed)
            return list(map(self._process.position_of, packed, sent))
        await self._process.enqueue(packed, connection)
        return None

    def subscribe(
        self,
        *topics: str,
        since: PointOrText | None = None,
        capacity: int | None = None,
        when_full: Literal["fail", "drop_newest", "drop_oldest"] = "fail",
        on_gap: Callable[[Gap], None] | None = None,
    ) -> Subscription:
        """Return a subscription to topics: from now on or, with `since`, all after it that the log still has.

        `since` is a point: the `position` of a message or of a subscription, or its text, for what came after that; a
        datetime with a time zone, for what was published at that time or later; a timedelta, for what was published in
        this time until now. Times are those of the database's clock. If messages after that point may have been lost, a
        gap comes first.

        At most `capacity` messages wait for a slow subscriber. When the mailbox is full, `"fail"` ends the subscription
        with `MessagesLost`; `"drop_newest"` and `"drop_oldest"` drop messages and count them in `subscription.lost`. If
        messages were lost for another reason, or may have been, the iteration raises `MessagesLost` once and continues.
        With `on_gap`, that function is called instead, also for dropped messages.
        """
        if not topics:
            raise ConfigurationError("subscribe needs at least one topic")
        return subscription_on(
            self._process,
            self._node_here,
            tuple(dict.fromkeys(require_valid_topic(topic) for topic in topics)),
            since=since,
            capacity=self._options.capacity if capacity is None else require_count("capacity", capacity),
            when_full=require_one_of("when_full", when_full, WhenFull),
            on_gap=require_callable_or_none("on_gap", on_gap),
        )

    async def history(
        self,
        topic: str,
        *,
        since: PointOrText | None = None,
        until: PointOrText | None = None,
        limit: int = 100,
    ) -> list[Message]:
        """Return messages still in the log, oldest first: the first `limit` after `since`, or else the last `limit`.

        `since` is as for `subscribe`. `until` ends the list: with the message at that position, or before the first
        that was published at that time or later.

        :raises DatabaseUnavailable: the database could not be reached within `send_timeout`.
        """
        topic, limit = require_valid_topic(topic), require_count("limit", limit, least=0)
        begin, end = (
            None if point is None else self._process.point(name, point)
            for name, point in (("since", since), ("until", until))
        )
        node = self._node_here()
        arrivals = await node.history(topic, since=begin, until=end, limit=limit)
        return [message_from(opened) for opened in node.payloads.readable(arrivals)]

    async def position(self, topic: str) -> Position:
        """Return where a topic stands now: before every message that is published to it from now on.

        Every message whose `publish` has returned is at this position or before it, and so is every message that a
        transaction begun later sees. So read a snapshot after this, then subscribe `since` this position: whatever the
        snapshot lacks follows. `SELECT pgchannels.position('room')` returns the text of the same inside the transaction
        that reads the snapshot; then nothing follows that the snapshot has, except for what a repeatable-read or
        serializable transaction has published and is still to be delivered.

        :raises DatabaseUnavailable: the database could not be reached within `send_timeout`.
        """
        topic = require_valid_topic(topic)
        return await self._node_here().position(topic)

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return the name of a new channel from which only this event loop receives."""
        return self._node_here().new_channel(prefix)

    @overload
    async def send(
        self, channel: str, payload: Any, *, expiry: float | None = None, connection: None = None
    ) -> Position: ...

    @overload
    async def send(
        self, channel: str, payload: Any, *, expiry: float | None = None, connection: AsyncExecutor
    ) -> None: ...

    async def send(
        self, channel: str, payload: Any, *, expiry: float | None = None, connection: AsyncExecutor | None = None
    ) -> Position | None:
        """Send a payload to a channel: to its one receiver or, without a '!', to exactly one of its receivers.

        `expiry` and `connection` are as for `publish`. Raises the same errors, and `ChannelFull` if as many messages as
        its capacity already wait for the channel; inside a transaction, it is the commit that fails then. A message
        that nobody receives within `expiry` is gone; in a work queue, that may be longer than the log keeps messages.
        """
        channel = require_valid_channel(channel)
        message = self._process.packer.to_channel(channel, payload, expiry=expiry)
        if connection is None:
            return self._process.position_of(message, await self._process.sender_for(channel).send(message))
        await self._process.enqueue([message], connection)
        return None

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
            item = await node.receive(channel)
            if isinstance(item, Opened):
                return item.payload
            if isinstance(item, Gap):
                if on_gap is None:
                    raise MessagesLost(item)
                on_gap(item)

    def claim(
        self,
        queue: str,
        *,
        attempts: int = 5,
        visible_after: float | None = None,
        on_gap: Callable[[Gap], None] | None = None,
    ) -> AbstractAsyncContextManager[Work]:
        """Wait for the next message of a work queue, and acknowledge it when the block ends::

            async with layer.claim("thumbnails") as work:
                await make_thumbnail(work.payload)

        If the block raises, or is cancelled, the message goes back to the end of the queue, and the exception
        propagates. It also goes back when this process is killed and its lease has ended, after six heartbeats and at
        least 30 seconds; or `visible_after` seconds after it was taken, though the block may still run. So a message is
        worked on at least once, perhaps more than once: work that was done is done again if the process is killed
        before the database knows, or took longer than `visible_after`.

        The end of the block does not wait for the database: the message is acknowledged, or given back, right after it.
        `close` waits for that.

        :param attempts: after so many failures, the message goes to the queue with this name and `.dead` behind it,
            from which it can be claimed or received. There, it is given back however often it fails.
        :param on_gap: called with each gap, instead of an error.
        :raises MessagesLost: messages expired in the queue, or were lost with it; the next call continues after them.
        :raises LayerClosed: the layer is not open in this event loop, or was closed.
        :raises InvalidName: the name has a '!', or more than 94 characters.
        """
        return working(
            self._node_here,
            require_claimable(queue),
            attempts=require_count("attempts", attempts, most=1_000_000, of="attempts"),
            visible_after=(
                None if visible_after is None else require_seconds("visible_after", visible_after, most=TEN_YEARS)
            ),
            on_gap=require_callable_or_none("on_gap", on_gap),
        )

    def _node_here(self) -> Node | Nodes:
        node = self._process.here()
        if node is None:
            raise LayerClosed(
                "the layer is not open in this event loop, or has failed: `async with layer:` or `await layer.open()`"
            )
        return node
