"""Keeps a node alive in the database."""

import os
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import asyncpg

from pgchannels.database.connections import Connections
from pgchannels.database.statements.nodes import beat, remove_node
from pgchannels.names import Identity, node_address, program_name
from pgchannels.options import Options

_SHORTEST_SECONDS: Final = 30


class Lease:
    """The lease of one node. When it ends, other nodes remove the node, with everything that it hosts."""

    def __init__(
        self,
        connections: Connections,
        identity: Identity,
        options: Options,
        *,
        retention_seconds: float,
    ) -> None:
        self._connections = connections
        self._identity = identity
        self._process = socket.gethostname(), os.getpid(), program_name()
        self._address = node_address(options.prefix, identity.name)
        self._may_be_taken = False
        self._retention = timedelta(seconds=retention_seconds)
        self._duration = timedelta(seconds=max(6 * options.beat_seconds, _SHORTEST_SECONDS))

    async def beat(self, probe: "Callable[..., Awaitable[asyncpg.Record]]") -> "tuple[int, asyncpg.Record]":
        """Take or renew the lease; return the version of what the node hosts in the database, and the log's extent.

        :param probe: runs the statement on the listening connection, and hears what it sends.
        """
        self._may_be_taken = True
        lease = self._identity.id, self._identity.name, self._duration, self._retention
        row: Any = await probe(self._connections.text(beat), *lease, behind_token=(*self._process, self._address))
        return row[0], row

    async def close(self) -> None:
        """Give up the lease, and everything that the node hosts."""
        if self._may_be_taken:  # else a database that is away would be called once more
            await self._connections.ask(remove_node, self._identity.id)
