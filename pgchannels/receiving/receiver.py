"""The receiving side of a node: puts its parts together."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from pgchannels.codec import Codec
from pgchannels.database.connections import Connections
from pgchannels.database.driver import DriverConnection
from pgchannels.database.extent import Extent
from pgchannels.database.statements.reading import extent
from pgchannels.errors import ForeignChannel, LayerClosed, copy_of
from pgchannels.messages import Gap, GapReason
from pgchannels.names import (
    Identity,
    is_queue,
    new_channel_name,
    node_address,
    node_name_of,
    queue_address,
)
from pgchannels.options import Options
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.catch_up import CatchUp
from pgchannels.receiving.channels import Channels
from pgchannels.receiving.commands import Commands
from pgchannels.receiving.expiry import Expiry
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.line import Turn
from pgchannels.receiving.listener import Probe
from pgchannels.receiving.log import Log
from pgchannels.receiving.losses import Losses
from pgchannels.receiving.mailbox import Item, ListenerState
from pgchannels.receiving.needs import Lease, Reports, Undelivered
from pgchannels.receiving.payloads import Opened, PayloadReader
from pgchannels.receiving.queues import Queues, Resender
from pgchannels.receiving.replay import Replays
from pgchannels.receiving.router import Router
from pgchannels.receiving.sweep import Sweep
from pgchannels.receiving.taking import Terms
from pgchannels.receiving.topics import Topics
from pgchannels.receiving.work import Taken

Received: TypeAlias = Opened | Gap | ListenerState  # a message with its payload, or news


class Part(Protocol):
    """Something that runs for as long as its node."""

    async def run(self) -> None:
        """Do the work of this part, forever."""


class Receiver:
    """Receives for one node: a notification goes to `hear`, in order through the catch-up, and routed into mailboxes.

    :param lease: keeps the node alive.
    :param reports: reports what others must know about the node.
    :param undelivered: delivers messages of transactions that have committed.
    :param beat_due: set when the database does not know this node: a heartbeat is due.
    """

    def __init__(
        self,
        connections: Connections,
        options: Options,
        identity: Identity,
        router: Router,
        losses: Losses,
        *,
        sender: Resender,
        lease: Lease,
        reports: Reports,
        undelivered: Undelivered,
        beat_due: asyncio.Event,
    ) -> None:
        self._connections, self._options, self._identity = connections, options, identity
        self._lease, self._reports, self._undelivered = lease, reports, undelivered
        self._address = node_address(options.prefix, identity.name)
        self.router: Router = router
        self.payloads: PayloadReader = PayloadReader(
            Codec(options.symmetric_encryption_keys), losses, may_be_unsealed=options.may_be_unsealed
        )
        self.log: Log = Log(connections)
        work = asyncio.Event()
        self.hosting: Hosting = Hosting(
            connections, identity.id, router, work=work, beat_due=beat_due, timeout_seconds=options.send_timeout
        )
        self.catch_up: CatchUp = CatchUp(
            self.log,
            router,
            self.hosting,
            work=work,
            on_impossible=self.payloads.note_impossible,
            is_polled=options.poll is not None,
        )
        self._received_before = 0
        self.replays: Replays = Replays(self.log, router, self.catch_up)
        self.queues: Queues = Queues(
            connections, router, self.hosting, losses, sender, self._address, is_polled=options.poll is not None
        )
        self._expiry = Expiry(options.expiry, connections)
        self.has_expired: Callable[[Arrival], bool] = self._expiry.is_over
        self.channels: Channels = Channels(
            router, losses, options.capacity_of, has_expired=self.has_expired, note_full=self._note_full
        )
        self.sweep: Sweep = Sweep(self._look_after_mailboxes, urgent_steps=self._look_after_full_channels)
        self.topics: Topics = Topics(options.prefix, router, self.hosting, require_running=self.require_running)
        self._commands = Commands(
            options.prefix, self.payloads, router, self.hosting, self.catch_up, self.channels, self.queues, reports
        )
        self._error: Exception | None = None

    def parts(self) -> "tuple[Part, ...]":
        """Return what must run for as long as the node lives."""
        return self.catch_up, self.replays, self.queues, self.sweep

    # Called by the listener.

    def begin(self) -> None:
        """Hold what a new connection receives until `beat` has returned."""
        self.catch_up.stop_listening()

    async def beat(self, probe: Probe) -> None:
        """Keep the node alive, and find out what happened to the log and to the hosted addresses."""
        version, row = await self._lease.beat(probe)
        seen = Extent.from_row(row)
        self.catch_up.meet(seen)
        if not self.hosting.is_known(version):
            self.hosting.forget()
            self.catch_up.read_all()
            self._reports.tell_again()
        if row["is_told"] and self._options.poll is None:
            self.catch_up.note_heard(filled_until=seen.filled_until)
        if row["has_undelivered"]:
            self._undelivered.deliver_soon()
        if not self.catch_up.is_listening:
            self.catch_up.begin_listening()
        self._look_after()

    def hear(self, text: str) -> None:
        """Take a notification: messages, a mark, or that there is something to claim or to deliver."""
        kind, _, content = text.partition(" ")
        if kind in {"m", "h"}:
            arrivals = self._arrivals(kind, content)
            if kind == "m" and arrivals:
                self._expiry.hear(arrivals[0])  # all have the same age
            for arrival in arrivals:
                self.catch_up.arrive(arrival)
        elif kind == "q":
            self.queues.tell(content)
        elif kind == "o":
            self._undelivered.deliver_soon()
        else:
            self.payloads.note_unreadable("ignored a notification of a kind that this version does not know")

    # Called by the poller, in place of `hear`.

    async def read_new(self) -> bool:
        """Read everything that has not been read, and see what can be claimed; return whether anything has come."""
        self.queues.wake_all()
        self.catch_up.read_all()
        await self.catch_up.caught_up()
        before, self._received_before = self._received_before, self._received
        return before != self._received

    def note_nothing_new(self, extent: Extent) -> None:
        """Record that everything up to the last id of the log has been read."""
        self.catch_up.meet(extent)
        self.catch_up.note_heard(filled_until=extent.filled_until)

    def deliver_undelivered(self) -> None:
        """Deliver what transactions have left."""
        self._undelivered.deliver_soon()

    @property
    def _received(self) -> int:
        return self.catch_up.messages_read + self.queues.messages_claimed

    # Called by both.

    def lost(self) -> None:
        """Report to the channels that the connection was lost, if `on_disconnect` is set."""
        if self._options.on_disconnect is not None:
            self.channels.tell(ListenerState.LOST)

    def back(self) -> None:
        """Report to the channels that a connection listens again, if `on_reconnect` is set."""
        if self._options.on_reconnect is not None:
            self.channels.tell(ListenerState.BACK)

    # Called by the router, with messages to this node's channels and commands.

    def put(self, arrival: Arrival) -> None:
        """Take a message to a channel, or a command."""
        if arrival.channel is not None:
            self.channels.accept(arrival.channel, arrival)
        elif arrival.envelope is None:
            self.lose(Gap(GapReason.EXPIRED, None))  # a command: some channel may not have joined its topic
        elif isinstance(read := self.payloads.read(arrival), Gap):
            self.lose(Gap(read.reason, None))
        else:
            self._commands.obey(read)

    def lose(self, gap: Gap) -> None:
        """Record that messages to this node's channels were lost."""
        self.channels.lose(gap)
        if gap.reason is GapReason.CRASH:
            self.queues.lose(gap)  # what expires in a queue is counted by the next claim

    # Called for users.

    async def open(self, *, is_late: bool = False) -> None:
        """Learn the extent of the log, and begin to host the node's own address.

        :param is_late: others know the name of the node already: receive everything that was sent to it.
        """
        self.catch_up.meet(await self.log.extent())
        self._connections.when_opened(self._look_at_log)
        self.router.add(self._address, self, self, after=0 if is_late else self.catch_up.extent.last_id)
        self.hosting.want(self._address)

    def new_channel(self, kind: str) -> str:
        """Return the name of a new channel of this node."""
        channel = new_channel_name(kind, self._identity.name)
        self.channels.expect(channel)
        return channel

    def owns(self, channel: str) -> bool:
        """Whether a channel belongs to this node."""
        return not is_queue(channel) and node_name_of(channel) == self._identity.name

    async def receive(self, channel: str) -> Received:
        """Return the next message of a channel, with its payload, or news; an unreadable message is a gap.

        :raises LayerClosed: the channel belongs to another node, or this one is closed.
        """
        await self.require_receivable(channel)
        if is_queue(channel):
            return self.opened(await self.queues.receive(Terms(queue_address(self._options.prefix, channel))))
        return self.opened(await self.channels.receive(channel))

    def turn(self, channel: str) -> AbstractContextManager[Turn[Item]]:
        """As `receive`, for a task that waits elsewhere, too; `require_receivable` comes first."""
        if is_queue(channel):
            return self.queues.turn(Terms(queue_address(self._options.prefix, channel)))
        return self.channels.turn(channel)

    async def take(self, queue: str, *, attempts: int, visible_seconds: float | None) -> Opened | Gap:
        """Return the next message of a work queue, or a gap; `queues.finish` or `queues.fail` must follow.

        A message that cannot be read has failed.

        :raises LayerClosed: this node is closed.
        """
        await self.require_receivable(queue)
        terms = Terms(queue_address(self._options.prefix, queue), attempts, visible_seconds)
        while (opened := self.to_work_on(await self.queues.receive(terms))) is None:
            pass
        return opened

    def to_work_on(self, item: Item) -> Opened | Gap | None:
        """Return a message that was taken to work on, or a gap; None if it cannot be read: then it has failed."""
        if isinstance(item, Gap):
            return item
        assert isinstance(item, Taken)
        opened = next(self.payloads.readable([item]), None)
        if opened is None:
            self.queues.fail(item)
        return opened

    async def receive_any(self, prefix: str) -> tuple[str, Received]:
        """As `receive`, from all channels with a prefix that ends with '!'; also return which channel."""
        await self.require_receivable(prefix)
        channel, item = await self.channels.receive_any(prefix)
        return channel, self.opened(item)

    async def join(self, topic: str, channel: str) -> None:
        """Give a channel of this node every message to a topic from now on, until a later command to leave arrives."""
        [(address, position)] = (await self.topics.reserve([topic], channel)).items()
        obeyed_until = self.router.position(self._address)
        self.channels.join(address, channel, after=position, obeyed_until=obeyed_until)

    async def heard_own(self) -> None:
        """Wait until everything that this node sent to its own channels has arrived, for five seconds at most."""
        await self.router.heard_own(self._address)

    def close(self, error: Exception) -> None:
        """End every wait with an error."""
        self._error = error
        self.topics.close(error)
        self.channels.close(error)
        self.hosting.close(error)
        self.replays.close(error)

    def _arrivals(self, kind: str, content: str) -> list[Arrival]:
        try:
            return Arrival.from_notification(content) if kind == "m" else [Arrival.mark(content)]
        except ValueError:
            self.payloads.note_unreadable("ignored a notification that no pgchannels wrote")
            return []

    async def _look_at_log(self, connection: DriverConnection) -> None:
        # First on each new connection: if a crash ended the one before, it is reported before what came after.
        row = await connection.fetchrow(self._connections.text(extent))
        assert row is not None
        self.catch_up.meet(Extent.from_row(row))

    def _look_after(self) -> None:
        if self.catch_up.is_live:  # else a command still to be read may need what has no receiver now
            self.hosting.release_unused()
        self.queues.wake_all()
        self.queues.give_back_soon()
        self.sweep.begin()

    def _look_after_mailboxes(self) -> Iterator[None]:
        group_expiry = self._options.group_expiry or math.inf
        yield from self.channels.look_after(joined_before=asyncio.get_running_loop().time() - group_expiry)
        yield from self.topics.expire()

    def _look_after_full_channels(self) -> Iterator[None]:
        yield from self.channels.expire_full()
        if self.channels.are_full:
            self.sweep.urge()

    def _note_full(self, channel: str, is_full: bool) -> None:
        self._reports.note_full(channel, is_full)
        if is_full:
            self.sweep.urge()

    async def require_receivable(self, channel: str) -> None:
        """Require that a channel can be received from here.

        :raises LayerClosed: it belongs to another node, or this one is closed.
        """
        if self._error is None and (is_queue(channel) or self.owns(channel)):
            return
        await asyncio.sleep(0)  # a loop that keeps receiving must let other tasks run
        self.require_running()
        raise ForeignChannel(
            f"{channel} was made in another event loop or process, or before the layer was closed here, and can be"
            " received from only there. Call new_channel() and receive() in the same event loop, for example in one"
            " function for async_to_sync; or receive from a name without '!', a work queue: any event loop can"
        )

    def opened(self, item: Item) -> Received:
        """Return a message with its payload, or news as they are; an unreadable message is a gap."""
        return self.payloads.read(item) if isinstance(item, Arrival) else item

    def require_running(self) -> None:
        """Require that the node is running.

        :raises LayerClosed: the node is closed, or has failed.
        """
        if self._error is not None:
            raise LayerClosed("the layer was closed or has failed: open it again") from copy_of(self._error)
