"""One open layer in one event loop: puts its parts together, and ends them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, TypeVar

from pgchannels.database.connections import Connections, together
from pgchannels.database.database import Database
from pgchannels.database.driver import DriverConnection
from pgchannels.database.retry import insist
from pgchannels.database.same_database import require_same_database
from pgchannels.database.wording import raise_explained
from pgchannels.errors import LayerClosed
from pgchannels.messages import Gap, Position, Positions
from pgchannels.names import Identity, topic_address
from pgchannels.options import Options
from pgchannels.points import Point, in_topic
from pgchannels.process.tasks import Tasks
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.listener import Listener
from pgchannels.receiving.losses import QUEUE_IN_TOPIC, Losses
from pgchannels.receiving.payloads import Opened, PayloadReader
from pgchannels.receiving.poller import Poller
from pgchannels.receiving.receiver import Received, Receiver
from pgchannels.receiving.router import Router
from pgchannels.receiving.work import Taken
from pgchannels.sending.outgoing import Outgoing
from pgchannels.sending.sender import Sender
from pgchannels.upkeep.lease import Lease
from pgchannels.upkeep.reports import Reports
from pgchannels.upkeep.retention import Retention
from pgchannels.upkeep.undelivered import Undelivered

_CLOSE_TIMEOUT_SECONDS: Final = 5
_SHORTEST_SILENCE_SECONDS: Final = 1

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("pgchannels")


class Node:
    """Sends and receives; three connections: one writes, one listens, one does everything else, or also writes.

    :param known_as: its name; by default, one that no other node has.
    """

    def __init__(
        self, database: Database, options: Options, *, on_closed: Callable[[], None], known_as: str | None = None
    ) -> None:
        self.identity: Identity = Identity.new(known_as)
        self.losses: Losses = Losses()
        self._options = options
        silence_seconds = max(2 * options.heartbeat, _SHORTEST_SILENCE_SECONDS)
        self._connections = connections = Connections(
            database, options.schema, is_writer_shared=options.is_writer_shared, silence_seconds=silence_seconds
        )
        self._router = router = Router()
        beat_due = asyncio.Event()
        self.sender: Sender = Sender(
            connections,
            options,
            on_dropped=self.losses.at(QUEUE_IN_TOPIC),
            on_sent=self._note_sent if options.poll else router.note_sent,
        )
        self._lease = Lease(connections, self.identity, options, retention_seconds=options.retention)
        self._reports = Reports(connections, self.identity.id)
        self._undelivered = Undelivered(connections)
        self.receiver: Receiver = Receiver(
            connections,
            options,
            self.identity,
            router,
            self.losses,
            sender=self.sender,
            lease=self._lease,
            reports=self._reports,
            undelivered=self._undelivered,
            beat_due=beat_due,
        )
        self._retention = Retention(connections, expiry_seconds=options.expiry, is_on_request=options.poll is not None)
        self._listening = connections if database.listening is None else Connections(database.listening, options.schema)
        self._listener = self._new_listener(beat_due)
        self._poller = self._new_poller(beat_due) if options.poll else None
        self._hearing = self._poller or self._listener
        self._tasks = Tasks(on_failure=self._fail)
        self._failure: LayerClosed | None = None
        self._on_closed = on_closed
        self._closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.has_failed: bool = False

    async def open(self, *, is_late: bool = False) -> None:
        """Connect and begin to listen; nothing stays open when this fails.

        :param is_late: others know the node's name already: receive what was sent to it before.

        :raises SchemaMissing: the database has no tables of pgchannels.
        :raises SchemaOutdated: they are older than this code.
        :raises DatabaseUnavailable: the database cannot be reached.
        :raises DatabaseRefused: it answers with an error, such as a missing privilege.
        """
        try:
            # Three connections at the same time; if the schema is missing, all fail, and the sender reports it.
            await together(self.sender.open(), self.receiver.open(is_late=is_late), self._hear())
            await self.receiver.catch_up.settle()
        except BaseException as error:
            await self._release()
            if isinstance(error, Exception):
                raise_explained(error, self._connections.place)
            raise
        assert self.sender.task is not None
        self._tasks.watch(self.sender.task)
        for part in (self._hearing, *self.receiver.parts(), self._reports, self._undelivered, self._retention):
            self._tasks.start(part.run(), name=type(part).__name__)
        self._keeper = asyncio.create_task(self._keep(), name="pgchannels keeper")

    async def _hear(self) -> None:
        try:
            await self._hearing.open()
        except Exception as error:
            raise_explained(error, self._listening.place)

    def _new_listener(self, beat_due: asyncio.Event) -> Listener:
        check = None if self._listening is self._connections else self._require_same_database
        return Listener(self._listening, self.identity.id, self.receiver, self._options, beat_due=beat_due, check=check)

    def _new_poller(self, beat_due: asyncio.Event) -> Poller:
        return Poller(
            self._connections,
            self.identity.id,
            self.receiver,
            self._options,
            beat_due=beat_due,
            on_beat=self._retention.rotate_soon,
        )

    async def _require_same_database(self, listening: DriverConnection) -> None:
        await require_same_database(self._connections, listening, self._listening.place)

    @property
    def is_closing(self) -> bool:
        """Whether the node is closing, or closed."""
        return self._closing.is_set()

    async def close(self) -> None:
        """Send what waits, give back what was claimed, end every wait, disconnect.

        All callers wait for the same closing, and cancelling them does not stop it.
        """
        self.begin_closing()
        if self._keeper is not None:
            await asyncio.wait([self._keeper])

    def begin_closing(self) -> None:
        """Begin to close; return at once."""
        self._failure = self._failure or LayerClosed("the layer was closed")
        self._closing.set()

    def beat_now(self) -> None:
        """Request a heartbeat before it is due."""
        self._hearing.beat_due.set()

    def abandon(self) -> None:
        """Disconnect after the event loop was closed: nothing else can be done there any more."""
        self._connections.abandon()
        self._listening.abandon()

    async def send(self, outgoing: Outgoing) -> int:
        """Send to a channel of this node; returns the message's id.

        :raises ChannelFull: the channel is exactly at its capacity.
        """
        assert outgoing.channel is not None
        with self.receiver.channels.place_in(outgoing.channel):
            outgoing.capacity = None  # there is room
            message_id = await self.sender.send(outgoing)
            await self.receiver.heard_own()  # it is in the mailbox now, in the reserved place
        return message_id

    async def join(self, topic: str, channel: str) -> None:
        """Give a channel of this node every message to a topic from now on."""
        await self.receiver.join(topic, channel)

    def new_channel(self, kind: str) -> str:
        """See `Receiver.new_channel`."""
        return self.receiver.new_channel(kind)

    def receive(self, channel: str) -> Awaitable[Received]:
        """See `Receiver.receive`."""
        return self.receiver.receive(channel)

    def receive_any(self, prefix: str) -> Awaitable[tuple[str, Received]]:
        """See `Receiver.receive_any`."""
        return self.receiver.receive_any(prefix)

    def take(self, queue: str, *, attempts: int, visible_seconds: float | None) -> Awaitable[Opened | Gap]:
        """See `Receiver.take`; `finish` or `fail` must follow."""
        return self.receiver.take(queue, attempts=attempts, visible_seconds=visible_seconds)

    def finish(self, taken: Taken) -> None:
        """See `Queues.finish`."""
        self.receiver.queues.finish(taken)

    def fail(self, taken: Taken) -> None:
        """See `Queues.fail`."""
        self.receiver.queues.fail(taken)

    def release(self, channel: str) -> None:
        """See `Channels.release`."""
        self.receiver.channels.release(channel)

    @property
    def payloads(self) -> PayloadReader:
        """What reads the payloads of its messages."""
        return self.receiver.payloads

    async def position(self, topic: str) -> Position:
        """Return where a topic stands now; raises as `history`."""
        prefix = self._options.prefix
        return await self._read(lambda: self.receiver.log.position(prefix, topic), "could not ask for a position")

    async def begin_of_replay(self, topics: Sequence[str], *, since: Point) -> dict[str, int]:
        """Return, for each topic, the id after which a replay since a point begins.

        :raises DatabaseUnavailable: the database could not be reached within `send_timeout`.
        :raises LayerClosed: the node is closed, or has failed.
        """
        if isinstance(since, Positions):
            return {topic: since.of(topic).to_id() for topic in topics}
        addresses = [topic_address(self._options.prefix, topic) for topic in topics]
        places = await self._read(lambda: self.receiver.log.places_at(addresses, since), "could not look up a time")
        return {topic: places[address].begin_after for topic, address in zip(topics, addresses, strict=True)}

    async def history(self, topic: str, *, since: Point | None, until: Point | None, limit: int) -> list[Arrival]:
        """Return the last messages of a topic, or the first ones after a point, up to another; oldest first.

        :raises DatabaseUnavailable: the database could not be reached within `send_timeout`.
        :raises LayerClosed: the node is closed, or has failed.
        """
        address = topic_address(self._options.prefix, topic)
        begin, end = (None if point is None else in_topic(point, topic) for point in (since, until))
        return await self._read(
            lambda: self.receiver.log.history(address, since=begin, until=end, limit=limit),
            "could not read the history",
        )

    async def _read(self, step: Callable[[], Awaitable[T]], what_failed: str) -> T:
        self.receiver.require_running()
        return await insist(
            step, place=self._connections.place, seconds=self._options.send_timeout, what_failed=what_failed
        )

    def _note_sent(self, last_ids: Mapping[str, int]) -> None:
        self._router.note_sent(last_ids)
        if self._poller is not None and any(map(self._router.has, last_ids)):
            self._poller.look_soon()

    async def _keep(self) -> None:
        # `asyncio.run` and the like cancel every task before they close the loop: the last chance to disconnect.
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
            in_any_case.push_async_callback(self._give_back)
            in_any_case.callback(self.receiver.close, self._failure)
            in_any_case.push_async_callback(self._tasks.stop)
            await self.receiver.queues.close(self._failure, timeout_seconds=_CLOSE_TIMEOUT_SECONDS)

    async def _give_back(self) -> None:
        await self.receiver.queues.give_back()
        await self.receiver.queues.end_work(timeout_seconds=_CLOSE_TIMEOUT_SECONDS)

    def _fail(self, task: asyncio.Task[None], error: BaseException) -> None:
        logger.error("%s failed: the layer closes in this event loop, open it again", task.get_name(), exc_info=error)
        self.has_failed = True
        self._failure = LayerClosed("the layer has failed in this event loop: open it again")
        self._failure.__cause__ = error
        self.receiver.close(self._failure)
        self.begin_closing()

    async def _release(self) -> None:
        async with AsyncExitStack() as in_any_case:  # in reverse order, even if a step is cancelled
            in_any_case.push_async_callback(self._connections.close)
            in_any_case.push_async_callback(self._listening.close)
            in_any_case.push_async_callback(self._give_lease_back)
            in_any_case.push_async_callback(self._hearing.close)
            in_any_case.push_async_callback(self.sender.close)
            in_any_case.push_async_callback(self._tasks.stop)

    async def _give_lease_back(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await self._lease.close()
                await self.receiver.queues.wake_others()
        except Exception as error:
            logger.debug("could not give the lease back, it will end by itself: %r", error)
