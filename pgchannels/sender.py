"""Everything that sending needs, in one event loop: packs payloads and writes them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pgchannels.codec import Codec
from pgchannels.database.connections import Connections
from pgchannels.database.revision import require_current_schema
from pgchannels.database.statements.membership import add_member, remove_all_members, remove_member
from pgchannels.database.statements.nodes import addresses_of_nodes, host_for
from pgchannels.database.statements.sending import remove_all_messages
from pgchannels.database.tables import Schema
from pgchannels.delivery.arrival import Arrival
from pgchannels.delivery.writer import Writer
from pgchannels.names import is_queue, node_address, node_name_of, queue_address, topic_address
from pgchannels.options import Options


class Sender:
    """Sends to addresses; one connection."""

    def __init__(
        self,
        connections: Connections,
        schema: Schema,
        options: Options,
        *,
        on_sent: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self._connections = connections
        self._schema = schema
        self._prefix = options.prefix
        self._timeout_seconds = options.send_timeout
        self._codec = Codec(options.symmetric_encryption_keys)
        self._writer = Writer(
            connections, schema, expiry_seconds=options.expiry, timeout_seconds=options.send_timeout, on_sent=on_sent
        )
        self.task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect.

        :raises SchemaMissing: the database has no tables of pgchannels.
        :raises SchemaOutdated: they are older than this code.
        """
        await self._connections.run_sync(lambda connection: require_current_schema(connection, self._schema.name))
        await self._writer.open()
        self.task = asyncio.create_task(self._writer.run(), name="pgchannels writer")

    async def send(self, address: str, payload: Any, *, channel: str | None = None) -> int:
        """Send one payload; returns the message's id once it is in the database."""
        bound_to = address if channel is None else f"{address} {channel}"
        return await self._writer.write(address, channel, self._codec.encode(payload, bound_to=bound_to))

    async def send_many(self, messages: Sequence[tuple[str, Any]]) -> list[int]:
        """Send payloads to addresses, in their order; nothing is sent when one of them cannot be."""
        packed = [(address, self._codec.encode(payload, bound_to=address)) for address, payload in messages]
        return await self._writer.write_many(packed)

    async def resend(self, arrival: Arrival) -> None:
        """Send a message again that was received and not used."""
        assert arrival.envelope is not None
        await self._writer.write(arrival.address, arrival.channel, arrival.envelope)

    async def join(self, topic: str, channel: str) -> None:
        """Give a queue, or a channel of another node, every message to a topic from now on."""
        address = topic_address(self._prefix, topic)
        if is_queue(channel):
            await self._connections.run(add_member(self._schema, address, queue_address(self._prefix, channel)))
        elif await self._connections.run(host_for(self._schema, node_name_of(channel), address)):
            # Its node is told of messages to the topic from here on, and takes those behind the command.
            await self._command(node_name_of(channel), {"join": [address, channel]})

    async def leave(self, topic: str, channel: str) -> None:
        """Undo `join`."""
        address = topic_address(self._prefix, topic)
        if is_queue(channel):
            await self._connections.run(remove_member(self._schema, address, queue_address(self._prefix, channel)))
        else:
            await self._command(node_name_of(channel), {"leave": [address, channel]})

    async def flush(self) -> None:
        """Delete every message and membership of the prefix, and tell every node to do the same."""
        await self._connections.run(remove_all_members(self._schema, self._prefix))
        await self._connections.run(remove_all_messages(self._schema, self._prefix))
        for row in await self._connections.run(addresses_of_nodes(self._schema, self._prefix)):
            await self.send(row.address, {"flush": True})

    async def close(self) -> None:
        """Send what waits, for as long as a send may take, then disconnect."""
        self._writer.close()
        if self.task is None:
            self._writer.disconnect()
            return
        await asyncio.wait([self.task], timeout=self._timeout_seconds)
        self.task.cancel()
        await asyncio.wait([self.task])

    async def _command(self, node_name: str, command: dict[str, Any]) -> None:
        # Through the log like any message: it comes in order, and a node that is away reads it when it is back.
        await self.send(node_address(self._prefix, node_name), command)
