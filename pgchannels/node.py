"""One running layer in one event loop: puts its parts together, and ends them."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from pgchannels.codec import Codec
from pgchannels.database.connections import Connections, together
from pgchannels.database.database import Database
from pgchannels.database.failures import explained
from pgchannels.database.retry import insist
from pgchannels.errors import LayerClosed
from pgchannels.names import new_node_name, topic_address
from pgchannels.options import Options
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.listener import Listener
from pgchannels.receiving.losses import Losses
from pgchannels.receiving.payloads import Payloads
from pgchannels.receiving.receiver import Receiver
from pgchannels.sender import Sender
from pgchannels.upkeep.flushing import Flushing
from pgchannels.upkeep.fullness import Fullness
from pgchannels.upkeep.lease import Lease
from pgchannels.upkeep.retention import Retention

_CLOSE_TIMEOUT_SECONDS: Final = 5
_SHORTEST_SILENCE_SECONDS: Final = 1

logger: logging.Logger = logging.getLogger("pgchannels")


class _Part(Protocol):
    async def run(self) -> None: ...


class Node:
    """Sends and receives; three connections: one writes, one listens, one does everything else."""

    def __init__(self, database: Database, options: Options, *, on_closed: Callable[[], None]) -> None:
        self.id: UUID = uuid4()  # 122 random bits: who does not know them can neither listen nor notify
        self.name: str = new_node_name()
        self.losses: Losses = Losses()
        self.payloads: Payloads = Payloads(Codec(options.symmetric_encryption_keys), self.losses)
        self._options = options
        silence_seconds = max(2 * options.heartbeat, _SHORTEST_SILENCE_SECONDS)
        self._connections = connections = Connections(database, options.schema, silence_seconds=silence_seconds)
        self._fullness = Fullness(connections, self.id, expire=lambda channel: self.receiver.channels.expire(channel))
        self._flushing = Flushing(connections, self.id)
        self._retention = Retention(connections, expiry_seconds=options.expiry)
        self.sender: Sender = Sender(
            connections,
            options,
            losses=self.losses,
            on_sent=lambda last_ids: self.receiver.router.note_sent(last_ids),
        )
        self._lease = Lease(
            connections,
            self.id,
            self.name,
            heartbeat_seconds=options.heartbeat,
            retention_seconds=self.sender.retention_seconds,
        )
        self.receiver: Receiver = Receiver(
            connections,
            options,
            node=self.id,
            name=self.name,
            payloads=self.payloads,
            losses=self.losses,
            valid_until=self.sender.valid_until,
            retention_seconds=self.sender.retention_seconds,
            resend=self.sender.resend,
            beat=self._lease.beat,
            on_unknown=lambda: self._listener.beat_now(),
            on_forgotten=self._tell_again,
            on_full=self._fullness.note,
            on_flushed=self._flushing.note,
        )
        self._listener = Listener(connections, self.id, self.receiver, heartbeat_seconds=options.heartbeat)
        self._tasks: list[asyncio.Task[None]] = []
        self.has_failed: bool = False
        self._failure: LayerClosed | None = None
        self._on_closed = on_closed
        self._closing = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and begin to listen; nothing stays open when this fails.

        :raises SchemaMissing: the database has no tables of pgchannels.
        :raises SchemaOutdated: they are older than this code.
        :raises DatabaseUnavailable: the database cannot be reached.
        :raises DatabaseRefused: it answers with an error, such as a missing privilege.
        """
        try:
            # Three connections at the same time; where the schema is missing all fail, and the sender tells it.
            await together(self.sender.open(), self.receiver.open(), self._listener.open())
            await self.receiver.catch_up.settle()
        except BaseException as error:
            await self._release()
            if isinstance(error, Exception):
                raise explained(error, self._connections.place) from error
            raise
        assert self.sender.task is not None
        self.sender.task.add_done_callback(self._notice_failure)
        for part in self._parts():
            self._start(part.run(), name=type(part).__name__)
        self._keeper = asyncio.create_task(self._keep(), name="pgchannels keeper")

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
        self._closing.set()

    def abandon(self) -> None:
        """Disconnect, when the event loop is closed: nothing else can be done there any more."""
        self._connections.abandon()

    async def send(self, channel: str, payload: Any) -> int:
        """Send to a channel of this node; returns the message's id.

        :raises ChannelFull: at its capacity, exactly.
        """
        with self.receiver.channels.place_in(channel):
            message_id = await self.sender.send(channel, payload, has_room=True)
            await self.receiver.heard_own()  # it is in the mailbox now, in place of the place
        return message_id

    async def history(self, topic: str, *, after: int | None, limit: int) -> list[Arrival]:
        """The last messages of a topic, or the first ones after a position; oldest first.

        :raises DatabaseUnavailable: the database could not be reached within `send_timeout`.
        :raises LayerClosed: the node is closed, or has failed.
        """
        self.receiver.require_running()
        address = topic_address(self._options.prefix, topic)
        return await insist(
            lambda: self.receiver.log.history(address, after=after, limit=limit),
            place=self._connections.place,
            seconds=self._options.send_timeout,
            what_failed="could not read the history",
        )

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
            in_any_case.push_async_callback(self.receiver.queues.give_back)
            in_any_case.callback(self.receiver.close, self._failure)
            in_any_case.push_async_callback(self._stop_tasks)
            await self.receiver.queues.close(self._failure, timeout_seconds=_CLOSE_TIMEOUT_SECONDS)

    def _parts(self) -> "tuple[_Part, ...]":
        receiver = self.receiver
        return (
            self._listener,
            receiver.catch_up,
            receiver.replays,
            receiver.queues,
            receiver.sweep,
            self._fullness,
            self._flushing,
            self._retention,
        )

    def _start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        task = asyncio.create_task(work, name=f"pgchannels {name}")
        task.add_done_callback(self._notice_failure)
        self._tasks.append(task)

    def _notice_failure(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.error("%s failed: the layer closes in this event loop, open it again", task.get_name(), exc_info=error)
        self.has_failed = True
        self._failure = LayerClosed("the layer has failed in this event loop: open it again")
        self._failure.__cause__ = error
        self.receiver.close(self._failure)
        self.begin_closing()

    def _tell_again(self) -> None:
        self._fullness.tell_again()
        self._flushing.tell_again()

    async def _stop_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _release(self) -> None:
        async with AsyncExitStack() as in_any_case:  # in the reverse order, also when a step is cancelled
            in_any_case.push_async_callback(self._connections.close)
            in_any_case.push_async_callback(self._give_lease_back)
            in_any_case.push_async_callback(self._listener.close)
            in_any_case.push_async_callback(self.sender.close)
            in_any_case.push_async_callback(self._stop_tasks)

    async def _give_lease_back(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_SECONDS):
                await self._lease.close()
        except Exception as error:
            logger.debug("could not give the lease back, it will end by itself: %r", error)
