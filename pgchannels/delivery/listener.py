"""Listens for one node, and never stops to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import asyncpg

from pgchannels.database.connections import Connections, is_connection_failure
from pgchannels.delivery.backoff import Backoff

logger = logging.getLogger("pgchannels")


class Listener:
    """Keeps one connection on LISTEN, and makes a new one whenever it is lost.

    `on_listening` runs after each LISTEN, also the first: whatever was sent before must be read from the log.
    Until it is done, `holding` keeps back what is heard.
    """

    def __init__(
        self,
        connections: Connections,
        node: UUID,
        *,
        on_notification: Callable[[str], None],
        on_listening: Callable[[], Awaitable[None]],
        holding: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._connections = connections
        self._channel = str(node)
        self._on_notification = on_notification
        self._on_listening = on_listening
        self._holding = holding
        self._connection: asyncpg.Connection[Any] | None = None
        self._lost = asyncio.Event()

    async def open(self) -> None:
        """Listen; raises what the database answers."""
        self._lost.clear()
        connection = self._connection = await self._connections.hold()
        connection.add_termination_listener(self._on_terminated)
        with self._holding():
            # LISTEN before reading: a message committed in between is then seen twice and delivered once, never missed.
            await connection.add_listener(self._channel, self._on_notified)
            await self._on_listening()

    async def run(self) -> None:
        """Listen again whenever the connection is lost, for ever."""
        backoff = Backoff()
        while True:
            await self._lost.wait()
            self.close()
            try:
                await self.open()
            except Exception as error:
                if not is_connection_failure(error):
                    raise
                self.close()
                self._lost.set()
                logger.warning("the database cannot be reached, will try again: %r", error)
                await backoff.pause()
            else:
                backoff.reset()
                logger.warning("listening again after a lost connection")

    def reconnect(self) -> None:
        """Give the connection up and make a new one."""
        self._lost.set()

    def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._on_terminated)
            connection.terminate()

    def _on_terminated(self, connection: object) -> None:
        if connection is self._connection:
            self._lost.set()

    def _on_notified(self, connection: object, _pid: int, _channel: str, text: object) -> None:
        # A connection that was given up may still have notifications of before: the new one reads them from the log.
        if connection is self._connection:
            self._on_notification(str(text))
