"""Keeps a node alive in the database, and finds out when it is deaf."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

from pgchannels.database.connections import Connections
from pgchannels.database.retry import repeat
from pgchannels.database.statements.nodes import beat, register_node, remove_node
from pgchannels.database.tables import Schema

_SHORTEST_LEASE_SECONDS: Final = 30
_SHORTEST_PROBE_SECONDS: Final = 1


class Lease:
    """The heartbeat of a node. Others remove a node whose lease ended, with all that it hosted."""

    def __init__(
        self,
        connections: Connections,
        schema: Schema,
        node: UUID,
        name: str,
        *,
        heartbeat_seconds: float,
        on_deaf: Callable[[], None],
        on_beat: Callable[[int], Awaitable[None]],
    ) -> None:
        self._connections = connections
        self._schema = schema
        self._node = node
        self._name = name
        self._heartbeat_seconds = heartbeat_seconds
        self._probe_seconds = max(heartbeat_seconds, _SHORTEST_PROBE_SECONDS)
        self._lease = timedelta(seconds=max(6 * heartbeat_seconds, _SHORTEST_LEASE_SECONDS))
        self._on_deaf = on_deaf
        self._on_beat = on_beat
        self._token = ""
        self._heard = asyncio.Event()

    async def open(self) -> None:
        """Take the lease."""
        await self._connections.run(register_node(self._schema, self._node, self._name, lease=self._lease))

    async def run(self) -> None:
        """Renew the lease, for ever."""
        await repeat(self._beat_later, what_failed="could not renew the lease of the node")

    def hear(self, token: str) -> None:
        """Take a probe that came back through the listener."""
        if token == self._token:
            self._heard.set()

    async def close(self) -> None:
        """Give the lease back, and all that the node hosts."""
        await self._connections.run(remove_node(self._schema, self._node))

    async def _beat_later(self) -> None:
        await asyncio.sleep(self._heartbeat_seconds)
        hosted = await self._beat()
        if hosted is not None:
            await self._on_beat(hosted)

    async def _beat(self) -> int | None:
        self._token = secrets.token_hex(8)
        self._heard.clear()
        try:
            statement = beat(self._schema, self._node, self._token, lease=self._lease)
            [(hosted,)] = await self._connections.run(statement, timeout_seconds=self._probe_seconds)
            async with asyncio.timeout(self._probe_seconds):  # wait_for() of Python 3.11 can swallow a cancellation
                await self._heard.wait()
        except TimeoutError:
            self._on_deaf()
            raise TimeoutError("no probe came back through the listening connection") from None
        if hosted is None:
            self._on_deaf()
        known: int | None = hosted
        return known
