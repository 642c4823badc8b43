"""A layer with several servers in one process: a `Process` for each, behind the verbs of one."""

import asyncio
import os
from collections.abc import Mapping, Sequence

from pgchannels.database.database import Database
from pgchannels.messages import Position
from pgchannels.names import topic_address
from pgchannels.options import Options
from pgchannels.points import Point, require_point
from pgchannels.process.closed_loops import end_tasks
from pgchannels.process.opening import Opening
from pgchannels.process.process import Process, keep_for_ever
from pgchannels.sending.outgoing import Outgoing, Packer
from pgchannels.servers.nodes import Nodes
from pgchannels.servers.placement import Placement
from pgchannels.servers.senders import BlockingPlacedSender, JoiningSender, PlacedChannelSender, PlacedSender, all_of
from pgchannels.servers.transactions import TransactionsOnServers


class Servers:
    """Safe to use from any thread. After a fork, the child begins with nothing.

    :param databases: by the names of the servers.
    :param idle_seconds: see `Process`.
    """

    def __init__(
        self,
        databases: Mapping[str, Database],
        options: Options,
        placement: Placement,
        *,
        idle_seconds: float | None = None,
    ) -> None:
        self._options = options
        self.placement: Placement = placement
        self.packer: Packer = Packer(options)
        self._processes = {
            server: Process(databases[server], options, idle_seconds=idle_seconds) for server in placement.names
        }
        self._transactions = TransactionsOnServers(self._processes, placement, options.schema)
        self._sender = PlacedSender(placement, options.prefix, lambda server: self._processes[server].sender())
        self._blocking_sender = BlockingPlacedSender(
            placement, options.prefix, lambda server: self._processes[server].blocking_sender()
        )
        self._begin()

    async def open(self, *, in_any_case: bool = False) -> Nodes:
        """See `Process.open`. A server that is away is awaited in the background, unless all are."""
        self._tidy()
        loop = asyncio.get_running_loop()
        opening = self._opening.get(loop)
        if opening is None:
            if (nodes := self.here()) is not None:
                return nodes
            opening = self._opening[loop] = Opening(self._open(loop), on_end=lambda: self._opening.pop(loop))
        return await opening.wait(in_any_case=in_any_case)

    def here(self) -> Nodes | None:
        """Return the open nodes of the running loop; if one has failed, they do not count."""
        nodes = self._nodes.get(asyncio.get_running_loop())
        return None if nodes is None or not nodes.are_whole else nodes

    async def close(self) -> None:
        """Close the nodes of the running loop and, where no other is left, the background senders."""
        self._tidy()
        loop = asyncio.get_running_loop()
        if opening := self._opening.get(loop):
            await opening.close()
        nodes = self._nodes.pop(loop, None)
        if nodes is not None:
            nodes.begin_closing()  # now, even if this is cancelled
            await nodes.close()
        await all_of(process.close() for process in self._processes.values())

    def stop_background(self) -> None:
        """Stop the background senders, until somebody without a node sends again."""
        for process in self._processes.values():
            process.stop_background()

    def sender(self) -> PlacedSender:
        """Return what sends for the running loop."""
        return self._sender

    def sender_for(self, channel: str) -> PlacedChannelSender:
        """Return what sends to a channel, and adds it to topics."""
        return PlacedChannelSender(
            self.placement, self._options.prefix, lambda server: self._sender_for(channel, server)
        )

    def blocking_sender(self) -> BlockingPlacedSender:
        """Return what sends for a thread without an event loop; each call raises `WouldBlock` in one that has one."""
        return self._blocking_sender

    def position_of(self, message: Outgoing, message_id: int) -> Position:
        """Return where a message stands that was sent."""
        return Position.from_id(message_id, self.placement.server_of(message.address))

    def point(self, name: str, value: object) -> Point:
        """Return the point that an argument stands for; raises `InvalidPosition`."""
        return require_point(name, value)

    def servers_of(self, topic: str) -> tuple[str, ...]:
        """Return the servers from which a topic is received."""
        return self.placement.servers_of(topic_address(self._options.prefix, topic))

    async def enqueue(self, messages: Sequence[Outgoing], connection: object) -> None:
        """Put messages into the transaction of a connection to one of the servers; see `TransactionsOnServers`."""
        process = await self._transactions.process_of(connection, messages)
        await process.enqueue(messages, connection)

    def enqueue_blocking(self, messages: Sequence[Outgoing], connection: object) -> None:
        """As `enqueue`, for a connection that blocks."""
        self._transactions.process_of_blocking(connection, messages).enqueue_blocking(messages, connection)

    def _sender_for(self, channel: str, server: str) -> JoiningSender:
        nodes = self._nodes.get(asyncio.get_running_loop())
        if nodes is not None and nodes.owns(channel):
            nodes.on([server])  # else nobody there would obey, or receive
        return self._processes[server].sender_for(channel)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Nodes:
        if failed := self._nodes.pop(loop, None):
            await failed.close()
        nodes = Nodes(self._processes, self.placement, self._options.prefix)
        try:
            await nodes.open()
        except BaseException:
            nodes.begin_closing()
            await nodes.close()
            raise
        self._nodes[loop] = nodes
        return nodes

    def _tidy(self) -> None:
        if self._pid != os.getpid():
            keep_for_ever([self._nodes, self._opening])
            self._begin()
        for loop in [loop for loop in (*self._nodes, *self._opening) if loop.is_closed()]:
            self._nodes.pop(loop, None)
            self._opening.pop(loop, None)
            end_tasks(loop)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._nodes: dict[asyncio.AbstractEventLoop, Nodes] = {}
        self._opening: dict[asyncio.AbstractEventLoop, Opening[Nodes]] = {}
