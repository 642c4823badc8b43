"""Tells the database that this node has forgotten everything, so that a flush is over when it returns."""

import asyncio
from uuid import UUID

from pgchannels.database.connections import Connections
from pgchannels.database.retry import repeat
from pgchannels.database.statements.nodes import note_flushed
from pgchannels.database.tables import Schema


class Flushing:
    """One statement for all flushes meanwhile."""

    def __init__(self, connections: Connections, schema: Schema, node: UUID) -> None:
        self._connections = connections
        self._schema = schema
        self._node = node
        self._flushed_until = 0
        self._work = asyncio.Event()

    def note(self, message_id: int) -> None:
        """Take notice that all that came before a message is forgotten."""
        self._flushed_until = message_id
        self._work.set()

    def tell_again(self) -> None:
        """Tell it again: the database may have forgotten this node."""
        if self._flushed_until:
            self._work.set()

    async def run(self) -> None:
        """Tell the database, for ever."""
        await repeat(self._tell, what_failed="could not tell that this node was flushed")

    async def _tell(self) -> None:
        await self._work.wait()
        self._work.clear()
        try:
            await self._connections.ask(note_flushed(self._schema, self._node, self._flushed_until))
        except BaseException:
            self._work.set()
            raise
