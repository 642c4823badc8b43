"""Everything that sending needs, in one event loop: packs payloads and writes them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from pgchannels.codec import Codec
from pgchannels.database.connections import Connections
from pgchannels.database.migrations import require_current_schema
from pgchannels.database.tables import Schema
from pgchannels.delivery.writer import Writer
from pgchannels.options import Options


class Sender:
    """Sends to addresses; one connection."""

    def __init__(self, connections: Connections, schema: Schema, options: Options) -> None:
        self._connections = connections
        self._schema = schema
        self._timeout_seconds = options.send_timeout
        self._codec = Codec(options.symmetric_encryption_keys)
        self._writer = Writer(connections, schema, expiry_seconds=options.expiry, timeout_seconds=options.send_timeout)
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect.

        :raises SchemaMissing: the database has no tables of pgchannels.
        :raises SchemaOutdated: they are older than this code.
        """
        await self._connections.run_sync(lambda connection: require_current_schema(connection, self._schema.name))
        await self._writer.open()
        self._task = asyncio.create_task(self._writer.run(), name="pgchannels writer")

    async def send(self, address: str, payload: Any, *, channel: str | None = None) -> int:
        """Send one payload; returns the message's id once it is in the database."""
        bound_to = address if channel is None else f"{address} {channel}"
        return await self._writer.write(address, channel, self._codec.encode(payload, bound_to=bound_to))

    async def send_many(self, messages: Sequence[tuple[str, Any]]) -> list[int]:
        """Send payloads to addresses, in their order; nothing is sent when one of them cannot be."""
        packed = [(address, self._codec.encode(payload, bound_to=address)) for address, payload in messages]
        return await self._writer.write_many(packed)

    async def resend(self, address: str, channel: str | None, envelope: bytes) -> int:
        """Send an envelope that was received and not used."""
        return await self._writer.write(address, channel, envelope)

    async def close(self) -> None:
        """Send what waits, for as long as a send may take, then disconnect."""
        self._writer.close()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=self._timeout_seconds)
            self._task.cancel()
            await asyncio.wait([self._task])
        self._writer.disconnect()
