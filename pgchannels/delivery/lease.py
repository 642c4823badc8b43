"""Keeps a node alive in the database, and finds out when it is deaf."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

from pgchannels.database.connections import Connections, is_connection_failure
from pgchannels.database.statements.nodes import (
    extend_lease,
    probe,
    register_node,
    remove_expired_nodes,
    remove_node,
)
from pgchannels.database.tables import Schema

LEASE: Final = timedelta(seconds=30)
_HEARTBEAT_SECONDS: Final = 10
_PROBE_SECONDS: Final = 5

logger = logging.getLogger("pgchannels")


class Lease:
    """The heartbeat of a node. Others remove a node whose lease ended, with all that it hosted."""

    def __init__(
        self,
        connections: Connections,
        schema: Schema,
        node: UUID,
        name: str,
        *,
        on_deaf: Callable[[], None],
        on_beat: Callable[[], Awaitable[None]],
    ) -> None:
        self._connections = connections
        self._schema = schema
        self._node = node
        self._name = name
        self._on_deaf = on_deaf
        self._on_beat = on_beat
        self._token = ""
        self._heard = asyncio.Event()

    async def open(self) -> None:
        """Take the lease."""
        await self._connections.run(register_node(self._schema, self._node, self._name, lease=LEASE))

    async def run(self) -> None:
        """Renew the lease, for ever."""
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            try:
                await self._beat()
            except Exception as error:
                if not is_connection_failure(error):
                    raise
                logger.warning("could not renew the node's lease, will try again: %r", error)

    def hear(self, token: str) -> None:
        """Take a probe that came back through the listener."""
        if token == self._token:
            self._heard.set()

    async def close(self) -> None:
        """Give the lease back, and all that the node hosts."""
        await self._connections.run(remove_node(self._schema, self._node))

    async def _beat(self) -> None:
        is_known = await self._connections.run(extend_lease(self._schema, self._node, lease=LEASE))
        if not is_known or not await self._can_hear():
            self._on_deaf()
        await self._connections.run(remove_expired_nodes(self._schema))
        await self._on_beat()

    async def _can_hear(self) -> bool:
        self._token = secrets.token_hex(8)
        self._heard.clear()
        await self._connections.run(probe(self._node, self._token))
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._heard.wait()
        except TimeoutError:
            logger.warning("the listening connection does not hear: making a new one")
            return False
        return True
