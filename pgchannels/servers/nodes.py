"""The nodes of one layer in one event loop, one on each server, behind the verbs of one node."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack
from enum import Enum
from itertools import chain
from typing import Any, Final, TypeVar

import asyncpg

from pgchannels.database.failures import of_driver
from pgchannels.database.retry import until_there
from pgchannels.errors import ConfigurationError, DatabaseUnavailable, PgChannelsError
from pgchannels.messages import Gap, Position, Positions
from pgchannels.names import (
    is_queue,
    new_channel_name,
    new_node_name,
    node_name_of,
    queue_address,
    topic_address,
)
from pgchannels.points import Point
from pgchannels.process.node import Node
from pgchannels.process.process import Process
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.line import Line, Turn, first_of
from pgchannels.receiving.payloads import Opened, PayloadReader
from pgchannels.receiving.receiver import Received
from pgchannels.receiving.taking import Terms
from pgchannels.receiving.work import Taken
from pgchannels.servers.beginnings import Beginnings
from pgchannels.servers.placement import Placement
from pgchannels.servers.senders import all_of

_PAUSE_SECONDS: Final = 5

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("pgchannels")


class _News(Enum):
    OF_SERVERS = "another node was opened"


class Nodes:
    """They share one name, and so their channels: whatever server a message comes from, the channel gets it.

    A server that is away when the others are opened is awaited in the background, and does not hold up the others.
    """

    def __init__(self, processes: Mapping[str, Process], placement: Placement, prefix: str) -> None:
        self._processes = processes
        self._placement = placement
        self._prefix = prefix
        self._name = new_node_name()
        self._nodes: dict[str, Node] = {}
        self._late: dict[str, asyncio.Task[None]] = {}
        self._line = Line()  # of tasks that receive, for news of servers

    async def open(self) -> None:
        """Open a node on each server.

        :raises PgChannelsError: as `Node.open`, if no server can be reached, or one has another fault.
        """
        servers = list(self._processes)
        outcomes = await asyncio.gather(*map(self._open, servers), return_exceptions=True)
        failures = {server: error for server, error in zip(servers, outcomes, strict=True) if error is not None}
        for error in failures.values():
            if isinstance(of_driver(error), asyncpg.UniqueViolationError):  # of the name of the nodes
                raise ConfigurationError(
                    f"two of the servers {', '.join(map(repr, servers))} are one database, by two addresses: give each"
                    " database once"
                ) from error
            if len(failures) == len(servers) or not isinstance(error, DatabaseUnavailable):
                raise error
        for server, error in failures.items():
            logger.warning("the layer opens without the server %s, and keeps trying: %s", server, error)
            self._late[server] = asyncio.create_task(self._open_late(server), name=f"pgchannels awaits {server}")

    @property
    def are_whole(self) -> bool:
        """Whether no node has failed; one may still be awaited."""
        return bool(self._nodes) and all(self._is_open(server) for server in self._nodes)

    def begin_closing(self) -> None:
        """Begin to close; return at once."""
        for task in self._late.values():
            task.cancel()
        for node in self._nodes.values():
            node.begin_closing()

    async def close(self) -> None:
        """Wait for no server any more, and close the nodes."""
        self.begin_closing()
        await asyncio.gather(*self._late.values(), return_exceptions=True)
        await all_of(node.close() for node in self._nodes.values())

    def owns(self, channel: str) -> bool:
        """Whether a channel belongs to these nodes."""
        return not is_queue(channel) and node_name_of(channel) == self._name

    def on(self, servers: Collection[str]) -> dict[str, Node]:
        """Return the nodes on some servers.

        :raises DatabaseUnavailable: one was away when the layer was opened, and is not back.
        """
        for server in servers:
            if server not in self._nodes:
                raise DatabaseUnavailable(
                    f"{self._processes[server].place} was away when the layer was opened, and is not back yet; other"
                    " servers are not affected"
                )
        return {server: self._nodes[server] for server in servers}

    def new_channel(self, kind: str) -> str:
        """See `Receiver.new_channel`; its name leads to all servers."""
        channel = new_channel_name(kind, self._name)
        for node in self._nodes.values():
            node.receiver.channels.expect(channel)
        return channel

    async def receive(self, channel: str) -> Received:
        """See `Receiver.receive`: the oldest message of what the servers have."""
        server, item = await self._first(channel, lambda node: node.receiver.turn(channel))
        return self._nodes[server].receiver.opened(item)

    async def receive_any(self, prefix: str) -> tuple[str, Received]:
        """See `Receiver.receive_any`."""
        server, (channel, item) = await self._first(prefix, lambda node: node.receiver.channels.turn_of_any(prefix))
        return channel, self._nodes[server].receiver.opened(item)

    async def take(self, queue: str, *, attempts: int, visible_seconds: float | None) -> Opened | Gap:
        """See `Receiver.take`: the oldest message of what the servers have, which stays on its server meanwhile."""
        terms = Terms(queue_address(self._prefix, queue), attempts, visible_seconds)
        while True:
            server, item = await self._first(queue, lambda node: node.receiver.queues.turn(terms))
            if isinstance(item, Taken):
                item.server = server
            if (opened := self._nodes[server].receiver.to_work_on(item)) is not None:
                return opened

    def finish(self, taken: Taken) -> None:
        """See `Queues.finish`; the server that the message came from learns it."""
        self._nodes[taken.server].finish(taken)

    def fail(self, taken: Taken) -> None:
        """See `Queues.fail`; the message goes back on the server that it came from."""
        self._nodes[taken.server].fail(taken)

    def release(self, channel: str) -> None:
        """See `Channels.release`."""
        for node in self._nodes.values():
            node.release(channel)

    @property
    def payloads(self) -> PayloadReader:
        """What reads the payloads of messages."""
        return self._any.payloads

    async def position(self, topic: str) -> Position:
        """See `Node.position`."""
        server = self._placement.server_of(topic_address(self._prefix, topic))
        return Position.from_id((await self.on([server])[server].position(topic)).to_id(), server)

    async def history(self, topic: str, *, since: Point | None, until: Point | None, limit: int) -> list[Arrival]:
        """See `Node.history`."""
        nodes = self.on(self._placement.servers_of(topic_address(self._prefix, topic)))
        parts = await all_of(
            node.history(topic, since=self._at(since, topic, server), until=self._at(until, topic, server), limit=limit)
            for server, node in nodes.items()
        )
        for server, part in zip(nodes, parts, strict=True):
            for arrival in part:
                arrival.server = server
        arrivals = sorted(chain.from_iterable(parts), key=lambda arrival: arrival.published_microseconds)
        return arrivals[:limit] if since is not None else arrivals[max(len(arrivals) - limit, 0) :]

    @property
    def _any(self) -> Node:
        return next(iter(self._nodes.values()))

    def _at(self, point: Point | None, topic: str, server: str) -> Point | None:
        if not isinstance(point, Positions):
            return point
        return Positions(Beginnings(point, first=self._placement.names[0]).on(topic, server))

    async def _first(self, channel: str, turn_of: Callable[[Node], AbstractContextManager[Turn[T]]]) -> tuple[str, T]:
        while True:
            nodes = dict(self._nodes)
            for node in nodes.values():
                await node.receiver.require_receivable(channel)
            with ExitStack() as waiting:
                turns: list[Turn[Any]] = [
                    waiting.enter_context(turn_of(node)).of(server) for server, node in nodes.items()
                ]
                item: tuple[str, T] | _News = await first_of([*turns, self._news(known=len(nodes))])
            if not isinstance(item, _News):
                return item

    def _news(self, *, known: int) -> Turn[Any]:
        return Turn(self._line, lambda: None if len(self._nodes) == known else _News.OF_SERVERS)

    async def _open(self, server: str, *, is_late: bool = False) -> None:
        process = self._processes[server]
        self._nodes[server] = await process.open(known_as=self._name, is_late=is_late, in_any_case=is_late)

    def _is_open(self, server: str) -> bool:
        node = self._nodes[server]
        return node is self._processes[server].here() and not node.is_closing

    async def _open_late(self, server: str) -> None:
        try:
            while server not in self._nodes:
                await self._try_to_open(server)
            logger.warning("the server %s is back", server)
            self._line.wake(len(self._line.places))
        finally:
            del self._late[server]

    async def _try_to_open(self, server: str) -> None:
        try:
            await until_there(lambda: self._open(server, is_late=True))
        except PgChannelsError as error:  # a refusal, such as of a name that an earlier attempt has left behind
            logger.warning("the server %s does not let the layer open, which keeps trying: %s", server, error)
            await asyncio.sleep(_PAUSE_SECONDS)
