"""One running layer in one event loop: puts the parts of the road together."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from pgchannels.codec import Codec
from pgchannels.database.connections import Database, explained, is_database_failure, together
from pgchannels.database.tables import Schema
from pgchannels.delivery.arrival import Arrival
from pgchannels.delivery.catch_up import CatchUp
from pgchannels.delivery.channels import Channels
from pgchannels.delivery.flushing import Flushing
from pgchannels.delivery.fullness import Fullness
from pgchannels.delivery.hosting import Hosting
from pgchannels.delivery.lease import Lease
from pgchannels.delivery.listener import Listener
from pgchannels.delivery.log import Log
from pgchannels.delivery.losses import Losses
from pgchannels.delivery.mailbox import Connection, Item, Mailbox
from pgchannels.delivery.payloads import Payloads
from pgchannels.delivery.queues import Queues
from pgchannels.delivery.retention import Retention
from pgchannels.delivery.retry import insist
from pgchannels.delivery.router import Router
from pgchannels.errors import LayerClosed, PgChannelsError
from pgchannels.lending import Lender
from pgchannels.messages import Gap, GapReason
from pgchannels.names import (
    is_queue,
    new_channel_name,
    new_node_name,
    node_address,
    node_name_of,
    queue_address,
    require_valid_channel,
    topic_address,
)
from pgchannels.options import Options
from pgchannels.sender import Sender

_CLOSE_TIMEOUT_SECONDS: Final = 5
_HELD_CONNECTIONS: Final = 2  # of the writer and of the listener

logger: logging.Logger = logging.getLogger("pgchannels")


Received = tuple[Arrival, Any] | Gap | Connection  # a message with its payload, or news


class _Part(Protocol):
    async def run(self) -> None: ...


class Node:
    """Sends and receives; three connections: one writes, one listens, one does everything else."""

    def __init__(self, database: Database, options: Options, *, on_closed: Callable[[], None]) -> None:
        self.id: UUID = uuid4()  # 122 random bits: who does not know them can neither listen nor notify
        self.name: str = new_node_name()
        self.losses: Losses = Losses()
        self._options = options
        self.payloads: Payloads = Payloads(Codec(options.symmetric_encryption_keys), self.losses)
        schema = Schema(options.schema)
        self._connections = connections = database.connect()
        self._log = Log(connections, schema, prefix=options.prefix)
        self._address = node_address(options.prefix, self.name)
        self._router = router = Router()
        self._fullness = Fullness(connections, schema, self.id)
        self._flushing = Flushing(connections, schema, self.id)
        self.sender: Sender = Sender(connections, schema, options, losses=self.losses, on_sent=router.note_sent)
        self.lender: Lender = Lender(asyncio.get_running_loop())
        self._channels = Channels(router, self.losses, options.capacity_of, on_full=self._fullness.note)
        self._catch_up = CatchUp(connections, schema, router)
        self._listener = Listener(
            connections,
            self.id,
            on_notification=self._hear,
            on_listening=self._begin_listening,
            holding=self._catch_up.holding,
            on_lost=lambda: self._tell(Connection.LOST),
            on_back=lambda: self._tell(Connection.BACK),
        )
        self._hosting = Hosting(
            connections, schema, self.id, router, self._catch_up, on_unknown=self._listener.reconnect
        )
        self._queues = Queues(
            connections,
            schema,
            router,
            self._hosting,
            self.losses,
            catch_up=self._catch_up,
            valid_until=self.sender.valid_until,
        )
        self._retention = Retention(connections, schema, expiry_seconds=options.expiry)
        self._lease = Lease(
            connections,
            schema,
            self.id,
            self.name,
            heartbeat_seconds=options.heartbeat,
            on_deaf=self._reconnect,
            on_beat=self._check_everything,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: Exception | None = None
        self._on_closed = on_closed
        self._closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._on_close: dict[Hashable, Callable[[Exception], None]] = {}

    async def open(self) -> None:
        """Connect and begin to listen; nothing stays open when this fails.

        :raises SchemaMissing: the database has no tables of pgchannels.
        :raises SchemaOutdated: they are older than this code.
        :raises DatabaseUnavailable: the database cannot be reached.
        :raises DatabaseRefused: it answers with an error, such as a missing privilege.
        """
        try:
            await self._connect()
        except BaseException as error:
            await self._release()
            if isinstance(error, Exception):
                raise explained(error) from error
            raise
        for part in self._parts():
            self._start(part.run(), name=type(part).__name__)
        self._keeper = asyncio.create_task(self._keep(), name="pgchannels keeper")
        self.lender.open(self.sender)

    @property
    def is_closing(self) -> bool:
        """Whether it closes, or is closed."""
        return self._closing.is_set()

    async def close(self) -> None:
        """Send what waits, give back what was claimed, end every wait, disconnect.

        All callers wait for the same closing, and cancelling them does not stop it.
        """
        self.begin_closing()
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    def begin_closing(self) -> None:
        """Close without being waited for."""
        self._failure = self._failure or LayerClosed("the layer was closed")
        self.lender.close()
        self._closing.set()

    async def send(self, channel: str, payload: Any) -> int:
        """Send to a channel of this node; returns the message's id.

        :raises ChannelFull: at its capacity, exactly.
        """
        with self._channels.place_in(channel):
            message_id = await self.sender.send(channel, payload, has_room=True)
            await self._router.heard_own(self._address)  # it is in the mailbox now, in place of the place
        return message_id

    def new_channel(self, kind: str) -> str:
        """The name of a new channel of this node."""
        channel = require_valid_channel(new_channel_name(kind, self.name))
        self._channels.expect(channel)
        return channel

    async def receive(self, channel: str) -> "Received":
        """The next message of a channel, with its payload, or news; a message that cannot be read is a gap.

        :raises LayerClosed: the channel belongs to another node, or this one is closed.
        """
        await self._require_receivable(channel)
        if is_queue(channel):
            return self._read(await self._queues.receive(queue_address(self._options.prefix, channel)))
        return self._read(await self._channels.receive(channel))

    async def receive_any(self, prefix: str) -> "tuple[str, Received]":
        """As `receive`, from all channels whose names begin with a prefix that ends with '!'; also tells which."""
        await self._require_receivable(prefix)
        channel, item = await self._channels.receive_any(prefix)
        return channel, self._read(item)

    async def subscribe(self, topic: str, key: Hashable, mailbox: Mailbox) -> int:
        """Begin to receive a topic. Returns the position after which every message comes to the mailbox."""
        self._require_running()
        address = topic_address(self._options.prefix, topic)
        self._router.add(address, key, mailbox)
        try:
            await self._hosting.ensure(address)
        except BaseException:
            self._router.remove(address, key)
            raise
        return self._router.position(address)

    def unsubscribe(self, topic: str, key: Hashable) -> None:
        """Undo `subscribe`."""
        self._router.remove(topic_address(self._options.prefix, topic), key)

    def owns(self, channel: str) -> bool:
        """Whether the channel is one of this node's own."""
        return not is_queue(channel) and node_name_of(channel) == self.name

    async def join(self, topic: str, channel: str) -> None:
        """Give a channel of this node every message to a topic from now on."""
        self._require_running()
        address = topic_address(self._options.prefix, topic)
        await self._router.heard_own(address)
        self._channels.join(address, channel)
        await self._hosting.ensure(address)

    async def leave(self, topic: str, channel: str) -> None:
        """Undo `join`; what this node sent before still comes to the channel."""
        address = topic_address(self._options.prefix, topic)
        await self._router.heard_own(address)
        self._channels.leave(address, channel)

    async def history(self, topic: str, *, after: int | None, limit: int) -> list[Arrival]:
        """The last messages of a topic, or the first ones after a position; oldest first.

        :raises DatabaseUnavailable: the database could not be reached within `send_timeout`.
        """
        self._require_running()
        return await insist(
            lambda: self._log.history(topic, after=after, limit=limit),
            seconds=self._options.send_timeout,
            what_failed="could not read the history",
        )

    @property
    def log(self) -> Log:
        """What was published before.

        :raises LayerClosed: the node is closed, or has failed.
        """
        self._require_running()
        return self._log

    def when_closed(self, key: Hashable, notify: Callable[[Exception], None] | None) -> None:
        """Call `notify` with the reason when the node closes or fails; None takes that back."""
        if notify is None:
            self._on_close.pop(key, None)
        else:
            self._on_close[key] = notify

    def put(self, arrival: Arrival) -> None:
        """Take a message to this node: one to a channel, or a command."""
        if arrival.channel is not None:
            self._channels.accept(arrival.channel, arrival)
            return
        if arrival.envelope is None:
            self.lose(Gap(GapReason.EXPIRED, None))  # a command: some channel has not joined its topic
            return
        for _, command in self.payloads.readable([arrival]):
            self._obey(command, arrival.id)

    def lose(self, gap: Gap) -> None:
        """Take notice that messages to this node's channels were lost."""
        self._channels.lose(gap)
        if gap.reason is GapReason.CRASH:
            self._queues.lose(gap)  # what expires in a queue is counted when it is claimed

    async def _keep(self) -> None:
        # `asyncio.run` and its like cancel every task before they close the loop: the last moment to disconnect.
        try:
            await self._closing.wait()
        finally:
            self.begin_closing()
            await self._close()

    async def _close(self) -> None:
        assert self._failure is not None
        async with AsyncExitStack() as in_any_case:
            in_any_case.callback(self._on_closed)
            in_any_case.push_async_callback(self._release)
            in_any_case.callback(self._end_waits, self._failure)
            in_any_case.push_async_callback(self._stop_tasks)
            await self._give_back_claimed(self._failure)

    async def _connect(self) -> None:
        await together(self._connections.hold_ahead(_HELD_CONNECTIONS), self.sender.require_schema())
        self._router.add(self._address, self, self)
        await together(self.sender.open(), self._listener.open())
        await self._catch_up.look_for_gaps()

    def _parts(self) -> "tuple[_Part, ...]":
        return (
            self._listener,
            self._catch_up,
            self._hosting,
            self._queues,
            self._fullness,
            self._flushing,
            self._lease,
            self._retention,
        )

    def _read(self, item: Item) -> "Received":
        return self.payloads.read(item) if isinstance(item, Arrival) else item

    async def _require_receivable(self, channel: str) -> None:
        if self._failure is None and (is_queue(channel) or self.owns(channel)):
            return
        await asyncio.sleep(0)  # a loop that receives all the same lets other tasks run
        self._require_running()
        raise LayerClosed(f"{channel} belongs to another node, or to one that is closed: only its own can receive")

    def _hear(self, text: str) -> None:
        kind, _, content = text.partition(" ")
        if kind == "m":
            try:
                arrivals = Arrival.from_notification(content)
            except ValueError:
                self.payloads.note_unreadable("ignored a notification that no pgchannels wrote")
                return
            for arrival in arrivals:
                self._catch_up.arrive(arrival)
        elif kind == "q":
            self._queues.wake(content)
        elif kind == "p":
            self._lease.hear(content)
        else:
            self.payloads.note_unreadable("ignored a notification of a kind that this version does not know")

    async def _begin_listening(self) -> None:
        await self._lease.open()
        await self.sender.keep_messages()
        await self._hosting.host_again()
        self._fullness.tell_again()
        self._queues.wake_all()

    async def _check_everything(self, hosted: int) -> None:
        await self._hosting.verify(hosted)
        await self._hosting.release_unused()
        self._catch_up.read_missed()
        self._queues.wake_all()
        if self._options.group_expiry:
            self._channels.leave_all_joined_before(asyncio.get_running_loop().time() - self._options.group_expiry)
        self._channels.expire(published_before=self._microseconds_before(self._options.expiry))
        await self._give_back(self._queues.take_abandoned())

    def _reconnect(self) -> None:
        self._connections.interrupt()
        self._listener.reconnect()

    def _microseconds_before(self, seconds: float) -> int:
        return int((self._connections.database_time() - seconds) * 1_000_000)

    def _tell(self, news: Connection) -> None:
        wanted = self._options.on_disconnect if news is Connection.LOST else self._options.on_reconnect
        if wanted is not None:
            self._channels.tell(news)

    def _obey(self, command: Any, position: int) -> None:
        match command:
            case {"join": [str(address), str(channel)]}:
                self._channels.join(address, channel)
                self._router.begin(address, position)
                self._hosting.adopt(address)
            case {"leave": [str(address), str(channel)]}:
                self._channels.leave(address, channel)
            case {"flush": True}:
                self._channels.clear()
                self._queues.clear(until=position)
                self._flushing.note(position)
            case _:
                self.payloads.note_unreadable("ignored a command that this version does not know")

    def _require_running(self) -> None:
        if self._failure is not None:
            raise LayerClosed("the layer was closed or has failed: open it again") from self._failure

    def _start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=f"pgchannels {name}")
        task.add_done_callback(self._notice_failure)
        self._tasks.append(task)

    def _notice_failure(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.error("%s failed, the layer no longer receives", task.get_name(), exc_info=error)
        self._failure = error if isinstance(error, Exception) else LayerClosed(repr(error))
        self._end_waits(self._failure)

    def _end_waits(self, error: Exception) -> None:
        for notify in list(self._on_close.values()):
            notify(error)
        self._channels.close(error)
        self._hosting.close(error)

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _give_back_claimed(self, error: Exception) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await self._give_back(await self._queues.close(error, timeout_seconds=_CLOSE_TIMEOUT_SECONDS))
        except Exception as failure:
            if not is_database_failure(failure):
                raise
            logger.error("claimed messages could not be given back to their queues: %r", failure)

    async def _give_back(self, arrivals: list[Arrival]) -> None:
        try:
            for arrival in arrivals:
                await self.sender.resend(arrival)
        except PgChannelsError as error:
            logger.error("up to %d claimed messages could not be given back to their queues: %s", len(arrivals), error)

    async def _release(self) -> None:
        async with AsyncExitStack() as in_any_case:  # in the reverse order, also when a step is cancelled
            in_any_case.push_async_callback(self._connections.close)
            in_any_case.push_async_callback(self._give_lease_back)
            in_any_case.callback(self._listener.close)
            in_any_case.push_async_callback(self.sender.close)
            in_any_case.push_async_callback(self._stop_tasks)

    async def _give_lease_back(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await self._lease.close()
        except Exception as error:
            logger.debug("could not give the lease back, it will end by itself: %r", error)
