"""Sends from one event loop: packs payloads and writes them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Concatenate, Final, ParamSpec
from uuid import UUID

import asyncpg
from sqlalchemy import Executable

from pgchannels.codec import Codec
from pgchannels.codec.commands import Command, Flush, Join, Leave, payload_of
from pgchannels.database.connections import Connections
from pgchannels.database.driver import DriverConnection, Records
from pgchannels.database.retry import insist
from pgchannels.database.revision import require_current_schema
from pgchannels.database.statements.membership import add_member, remove_all_members, remove_member
from pgchannels.database.statements.nodes import nodes_to_flush, remove_deaf_nodes, remove_node
from pgchannels.database.statements.retention import keep_messages_for
from pgchannels.database.statements.sending import outbox_database, remove_all_messages
from pgchannels.database.tables import Schema
from pgchannels.database.wording import raise_explained
from pgchannels.messages import Gap
from pgchannels.names import is_queue, node_address, node_name_of, queue_address, topic_address
from pgchannels.options import Options
from pgchannels.sending.outgoing import Outgoing
from pgchannels.sending.unflushed import Unflushed
from pgchannels.sending.writer import Writer

P = ParamSpec("P")

_UNBOUNDED: Final = 2**31 - 1
_FLUSH_PAUSE_SECONDS: Final = 0.01
_LONGEST_UNDER_WAY_SECONDS: Final = 20.0  # older calls, perhaps repeated meanwhile, are refused by the database


class Sender:
    """Sends to addresses, on one connection."""

    def __init__(
        self,
        connections: Connections,
        options: Options,
        *,
        on_dropped: Callable[[Gap], None],
        on_sent: Callable[[Mapping[str, int]], None] = lambda _: None,
        idle_seconds: float | None = None,
    ) -> None:
        self._connections = connections
        self._options = options
        self._prefix = options.prefix
        self.retention_seconds: float = options.retention
        self._command_codec = Codec(options.symmetric_encryption_keys)  # a user's format need not support commands
        self._writer = Writer(
            connections,
            expiry_seconds=options.expiry,
            timeout_seconds=options.send_timeout,
            retention_seconds=options.retention,
            valid_until=self.valid_until,
            on_dropped=on_dropped,
            on_sent=on_sent,
            on_connected=self.prepare,
            idle_seconds=idle_seconds,
        )
        self.task: asyncio.Task[None] | None = None

    async def prepare(self, connection: DriverConnection) -> None:
        """Check the tables, and make the log keep messages for as long as this layer's may be received.

        Runs on each new connection: a failover can undo both.

        :raises SchemaMissing: the database has no tables of pgchannels.
        :raises SchemaOutdated: they are older than this code.
        :raises DatabaseRefused: a privilege is missing.
        """
        try:
            schema, advice = self._connections.schema.name, self._options.upgrade_advice
            await require_current_schema(connection.fetch, schema, self._connections.place, advice=advice)
            await connection.fetch(self._connections.text(keep_messages_for), self.retention_seconds)
        except asyncpg.InsufficientPrivilegeError as error:
            raise_explained(error, self._connections.place)

    async def open(self) -> None:
        """Connect and begin to send."""
        await self._writer.open()
        self.start()

    def start(self) -> "asyncio.Task[None]":
        """Begin to send; the first message connects. The task ends when nothing can be sent any more."""
        self.task = asyncio.create_task(self._writer.run(), name="pgchannels writer")
        return self.task

    def valid_until(self) -> float:
        """Return until when, by the database's clock, a call made now may take effect; the log remembers it longer."""
        return self._connections.database_time() + min(self.retention_seconds, _LONGEST_UNDER_WAY_SECONDS)

    def send(self, outgoing: Outgoing) -> Awaitable[int]:
        """Send one message; the result is its id once it is in the database.

        :raises ChannelFull: as many messages as its capacity are waiting.
        """
        return self._writer.write(outgoing)

    def send_many(self, outgoing: Sequence[Outgoing]) -> Awaitable[list[int]]:
        """Send messages in their order."""
        return self._writer.write_many(outgoing)

    async def resend(self, address: str, channel: str | None, envelope: bytes) -> None:
        """Put a message back, at the end of the queue that it was claimed from."""
        await self._writer.write(Outgoing(address, channel, envelope, _UNBOUNDED))

    async def database_name(self) -> str:
        """Return how the database names itself, to tell it from others with the same tables."""
        [(name,)] = await self._ask(outbox_database)
        return str(name)

    async def join(self, topic: str, channel: str) -> None:
        """Give a queue, or a channel of another node, every message to a topic from now on."""
        address = topic_address(self._prefix, topic)
        if is_queue(channel):
            queue, capacity = queue_address(self._prefix, channel), self._options.capacity_of(channel)
            expiry = timedelta(seconds=self._options.group_expiry) or None
            await self._ask(add_member, address, queue, capacity=capacity, expiry=expiry)
        else:
            # When its node reaches this command, it hosts the topic, and reads what was sent after the command.
            await self._command(node_address(self._prefix, node_name_of(channel)), Join(address, channel))

    async def leave(self, topic: str, channel: str) -> None:
        """Undo `join`."""
        address = topic_address(self._prefix, topic)
        if is_queue(channel):
            await self._ask(remove_member, address, queue_address(self._prefix, channel))
        else:
            await self._command(node_address(self._prefix, node_name_of(channel)), Leave(address, channel))

    async def flush(self) -> None:
        """Delete every message and membership of the prefix; return when every living node has done the same.

        A node that was killed, or does not come back after a crash of the server, counts as living until its lease
        ends.
        """
        await self._ask(remove_all_members, self._prefix)
        await self._ask(remove_all_messages, self._prefix)
        unflushed = Unflushed(lambda address: self._command(address, Flush()))
        while await unflushed.are_left(await self._ask(nodes_to_flush, self._prefix)):  # noqa: ASYNC110
            await asyncio.sleep(_FLUSH_PAUSE_SECONDS)

    async def remove_deaf_nodes(self) -> None:
        """Remove the nodes of killed processes; a flush would wait until their leases end."""
        await self._ask(remove_deaf_nodes)

    async def remove_node(self, node: UUID) -> None:
        """Remove a node that is gone, before its lease ends."""
        await self._ask(remove_node, node)

    async def close(self) -> None:
        """Send what waits, for at most `send_timeout`, then disconnect."""
        self._writer.close()
        if self.task is None:
            await self._writer.disconnect()
            return
        try:
            await asyncio.wait([self.task], timeout=self._options.send_timeout)
        finally:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def _ask(
        self, build: Callable[Concatenate[Schema, P], Executable], *values: P.args, **named: P.kwargs
    ) -> Records:
        return await insist(
            # A flush can take a while.
            lambda: self._connections.ask_patiently(self._options.send_timeout, build, *values, **named),
            place=self._connections.place,
            seconds=self._options.send_timeout,
            what_failed="could not ask the database",
        )

    def _command(self, node: str, command: Command) -> Awaitable[int]:
        # Through the log like any message: it arrives in order, and a node that is away reads it when it is back.
        envelope = self._command_codec.encode(payload_of(command), bound_to=node)
        return self._writer.write(Outgoing(node, None, envelope))
