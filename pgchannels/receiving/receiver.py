"""Everything that a node hears, and for whom."""

import asyncio
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import asyncpg

from pgchannels.codec import Codec
from pgchannels.codec.commands import Flush, Join, Leave, command_in
from pgchannels.database.connections import Connections
from pgchannels.database.driver import DriverConnection
from pgchannels.database.extent import Extent
from pgchannels.database.statements.reading import extent
from pgchannels.errors import ForeignChannel, InvalidName, LayerClosed, UnreadableMessage, copy_of
from pgchannels.messages import Gap, GapReason
from pgchannels.names import (
    Identity,
    is_queue,
    new_channel_name,
    node_address,
    node_name_of,
    queue_address,
    require_valid_channel,
    require_valid_topic,
    topic_address,
)
from pgchannels.options import Options
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.catch_up import CatchUp
from pgchannels.receiving.channels import Channels
from pgchannels.receiving.expiry import Expiry
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.listener import Probe
from pgchannels.receiving.log import Log
from pgchannels.receiving.losses import Losses
from pgchannels.receiving.mailbox import Item, ListenerState, Mailbox
from pgchannels.receiving.payloads import Opened, PayloadReader
from pgchannels.receiving.queues import Queues, Resender
from pgchannels.receiving.replay import Cursor, Replays
from pgchannels.receiving.router import Router
from pgchannels.receiving.sweep import MOST_IN_A_STEP, Sweep

Received: TypeAlias = Opened | Gap | ListenerState  # a message with its payload, or news


class Part(Protocol):
    """Something that runs for as long as its node."""

    async def run(self) -> None:
        """Do what there is to do, for ever."""


class Lease(Protocol):
    """Keeps a node alive."""

    async def beat(self, probe: Probe) -> "tuple[int, asyncpg.Record]":
        """Renew the lease by a probe of the connection that listens: the hosted version, and the log's extent."""


class Reports(Protocol):
    """What others must know of a node."""

    def note_full(self, channel: str, is_full: bool) -> None:
        """A channel became full, or is no longer."""

    def note_flushed(self, message_id: int) -> None:
        """All that came before a message is forgotten."""

    def tell_again(self) -> None:
        """The database has forgotten this node."""


class Receiver:
    """Of one node. A notification goes to `hear`, in order through the catch-up, and by the router into mailboxes.

    :param lease: keeps the node alive.
    :param reports: what others must know of the node.
    :param beat_due: set when the database does not know this node: it must beat.
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
        beat_due: asyncio.Event,
    ) -> None:
        self._connections, self._options, self._identity = connections, options, identity
        self._lease, self._reports = lease, reports
        self._address = node_address(options.prefix, identity.name)
        self._topics = topic_address(options.prefix, "")
        self.router: Router = router
        self.payloads: PayloadReader = PayloadReader(Codec(options.symmetric_encryption_keys), losses)
        self.log: Log = Log(connections)
        work = asyncio.Event()
        self.hosting: Hosting = Hosting(connections, identity.id, router, work=work, beat_due=beat_due)
        self.catch_up: CatchUp = CatchUp(
            self.log, router, self.hosting, work=work, on_impossible=self.payloads.note_impossible
        )
        self.replays: Replays = Replays(self.log, router, self.catch_up)
        self.queues: Queues = Queues(connections, router, self.hosting, losses, sender)
        self._expiry = Expiry(options.expiry, connections)
        self.has_expired: Callable[[Arrival], bool] = self._expiry.is_over
        self.channels: Channels = Channels(
            router, losses, options.capacity_of, has_expired=self.has_expired, note_full=self._note_full
        )
        self.sweep: Sweep = Sweep(self._look_after_mailboxes, urgent_steps=self._look_after_full_channels)
        self._error: Exception | None = None
        self._subscribed: dict[Hashable, Mailbox] = {}

    def parts(self) -> "tuple[Part, ...]":
        """What is to run for as long as the node lives."""
        return self.catch_up, self.replays, self.queues, self.sweep

    # What the listener tells.

    def begin(self) -> None:
        """Hold what comes by a new connection until `beat` has returned."""
        self.catch_up.stop_listening()

    async def beat(self, probe: Probe) -> None:
        """Keep the node alive, and find out what happened to what it hosts and to the log."""
        version, row = await self._lease.beat(probe)
        seen = Extent.from_row(row)
        self.catch_up.meet(seen)
        if not self.hosting.is_known(version):
            self.hosting.forget()
            self.catch_up.read_all()
            self._reports.tell_again()
        if row["is_told"]:
            self.catch_up.note_heard(filled_until=seen.filled_until)
        if not self.catch_up.is_listening:
            self.catch_up.begin_listening()
        self._look_after()

    def hear(self, text: str) -> None:
        """Take a notification: messages, or that there is something to claim."""
        kind, _, content = text.partition(" ")
        if kind in {"m", "h"}:
            arrivals = self._arrivals(kind, content)
            if kind == "m" and arrivals:
                self._expiry.hear(arrivals[0])  # all have one age
            for arrival in arrivals:
                self.catch_up.arrive(arrival)
        elif kind == "q":
            self.queues.wake(content)
        else:
            self.payloads.note_unreadable("ignored a notification of a kind that this version does not know")

    def lost(self) -> None:
        """Tell the channels that want to know."""
        if self._options.on_disconnect is not None:
            self.channels.tell(ListenerState.LOST)

    def back(self) -> None:
        """Tell the channels that want to know."""
        if self._options.on_reconnect is not None:
            self.channels.tell(ListenerState.BACK)

    # What the router hands on: messages to this node's channels, and commands.

    def put(self, arrival: Arrival) -> None:
        """Take a message to a channel, or a command."""
        if arrival.channel is not None:
            self.channels.accept(arrival.channel, arrival)
        elif arrival.envelope is None:
            self.lose(Gap(GapReason.EXPIRED, None))  # a command: some channel has not joined its topic
        elif isinstance(read := self.payloads.read(arrival), Gap):
            self.lose(Gap(read.reason, None))
        else:
            self._obey(read.payload, arrival.id)

    def lose(self, gap: Gap) -> None:
        """Take notice that messages to this node's channels were lost."""
        self.channels.lose(gap)
        if gap.reason is GapReason.CRASH:
            self.queues.lose(gap)  # what expires in a queue is counted when it is claimed

    # What users ask for.

    async def open(self) -> None:
        """Get to know the log."""
        self.catch_up.meet(await self.log.extent())
        self._connections.when_opened(self._look_at_log)
        self.router.add(self._address, self, self, after=self.catch_up.extent.last_id)
        self.hosting.want(self._address)

    def new_channel(self, kind: str) -> str:
        """The name of a new channel of this node."""
        channel = new_channel_name(kind, self._identity.name)
        self.channels.expect(channel)
        return channel

    def owns(self, channel: str) -> bool:
        """Whether the channel is one of this node's own."""
        return not is_queue(channel) and node_name_of(channel) == self._identity.name

    async def receive(self, channel: str) -> Received:
        """The next message of a channel, with its payload, or news; a message that cannot be read is a gap.

        :raises LayerClosed: the channel belongs to another node, or this one is closed.
        """
        await self._require_receivable(channel)
        if is_queue(channel):
            return self._read(await self.queues.receive(queue_address(self._options.prefix, channel)))
        return self._read(await self.channels.receive(channel))

    async def receive_any(self, prefix: str) -> tuple[str, Received]:
        """As `receive`, from all channels whose names begin with a prefix that ends with '!'; also tells which."""
        await self._require_receivable(prefix)
        channel, item = await self.channels.receive_any(prefix)
        return channel, self._read(item)

    async def subscribe(self, topics: Sequence[str], key: Hashable, mailbox: Mailbox) -> None:
        """Begin to receive topics: every message that is sent when this has returned comes to the mailbox."""
        addresses = await self._reserve(topics, key)
        for address, position in addresses.items():
            self.router.add(address, key, mailbox, after=position)

    async def replay(self, topics: Sequence[str], key: Hashable, mailbox: Mailbox, *, after: int) -> Cursor:
        """As `subscribe`, but every message after a position; the cursor tells when the mailbox goes on."""
        addresses = await self._reserve(topics, key)
        return Cursor(key, mailbox, list(addresses), after=after)

    def unsubscribe(self, topics: Sequence[str], key: Hashable) -> None:
        """Undo `subscribe` and `replay`."""
        for topic in topics:
            self.router.remove(topic_address(self._options.prefix, topic), key)

    async def join(self, topic: str, channel: str) -> None:
        """Give a channel of this node every message to a topic from now on, until a later command to leave comes."""
        [(address, position)] = (await self._reserve([topic], channel)).items()
        obeyed_until = self.router.position(self._address)
        self.channels.join(address, channel, after=position, obeyed_until=obeyed_until)

    async def heard_own(self) -> None:
        """Return when all that this node has sent to its own channels has come, or some seconds have passed."""
        await self.router.heard_own(self._address)

    def keep(self, key: Hashable, mailbox: Mailbox) -> None:
        """Look after the mailbox of a subscription, and close it with the reason when the node closes or fails."""
        self._subscribed[key] = mailbox

    def forget(self, key: Hashable) -> None:
        """Undo `keep`."""
        self._subscribed.pop(key, None)

    def close(self, error: Exception) -> None:
        """End every wait with an error."""
        self._error = error
        for mailbox in self._subscribed.values():
            mailbox.close(error)
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
        # Before anything else is asked for by a new connection: a crash, which ended the one before, is told before
        # what came after it.
        row = await connection.fetchrow(self._connections.text(extent))
        assert row is not None
        self.catch_up.meet(Extent.from_row(row))

    async def _reserve(self, topics: Sequence[str], key: Hashable) -> dict[str, int]:
        """Host topics; the address of each, and an id: every message that is sent from now on has a greater one."""
        self.require_running()
        addresses = [topic_address(self._options.prefix, topic) for topic in topics]
        for address in addresses:
            self.router.reserve(address, key)
        try:
            return dict(zip(addresses, await self.hosting.positions_of(addresses), strict=True))
        except BaseException:
            for address in addresses:
                self.router.release(address, key)
            raise

    def _look_after(self) -> None:
        if self.catch_up.is_live:  # else a command that is still to be read may want what nobody is here for now
            self.hosting.release_unused()
        self.queues.wake_all()
        self.queues.give_back_soon()
        self.sweep.begin()

    def _look_after_mailboxes(self) -> Iterator[None]:
        group_expiry = self._options.group_expiry or math.inf
        yield from self.channels.look_after(joined_before=asyncio.get_running_loop().time() - group_expiry)
        for mailbox in list(self._subscribed.values()):
            while mailbox.expire(most=MOST_IN_A_STEP):
                yield
            yield

    def _look_after_full_channels(self) -> Iterator[None]:
        yield from self.channels.expire_full()
        if self.channels.are_full:
            self.sweep.urge()

    def _note_full(self, channel: str, is_full: bool) -> None:
        self._reports.note_full(channel, is_full)
        if is_full:
            self.sweep.urge()

    def _obey(self, payload: Any, position: int) -> None:
        try:
            match command_in(payload):
                case Join(address, channel):
                    self._join(self._topic_address(address), require_valid_channel(channel), position)
                case Leave(address, channel):
                    self.channels.leave(address, channel, at=position)
                case Flush():
                    self.channels.clear()
                    self.queues.clear(until=position)
                    self._reports.note_flushed(position)
        except UnreadableMessage as error:
            self.payloads.note_unreadable(str(error))
        except InvalidName:
            self.payloads.note_unreadable("ignored a command with an impossible name")

    def _join(self, address: str, channel: str, position: int) -> None:
        is_heard = self.hosting.hosts(address) and self.router.brings(address, after=position)
        self.channels.join(address, channel, after=position, obeyed_until=position)
        if not is_heard:
            self.hosting.want(address, is_marked=True)
            self.catch_up.read(address)

    def _topic_address(self, address: str) -> str:
        """The address, if it is of a topic with this layer's prefix."""
        if not address.startswith(self._topics):
            raise InvalidName(f"{address:.200} is no topic of this layer")
        return topic_address(self._options.prefix, require_valid_topic(address.removeprefix(self._topics)))

    async def _require_receivable(self, channel: str) -> None:
        if self._error is None and (is_queue(channel) or self.owns(channel)):
            return
        await asyncio.sleep(0)  # a loop that receives all the same lets other tasks run
        self.require_running()
        raise ForeignChannel(
            f"{channel} was made in another event loop or process, or before the layer was closed here, and can be"
            " received from only there. Call new_channel() and receive() in the same event loop, for example in one"
            " function for async_to_sync; or receive from a name without '!', a work queue: any event loop can"
        )

    def _read(self, item: Item) -> Received:
        return self.payloads.read(item) if isinstance(item, Arrival) else item

    def require_running(self) -> None:
        """Raise what ended the node, if something did.

        :raises LayerClosed: the node is closed, or has failed.
        """
        if self._error is not None:
            raise LayerClosed("the layer was closed or has failed: open it again") from copy_of(self._error)
