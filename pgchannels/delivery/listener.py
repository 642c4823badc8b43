"""Listens for one node, and never stops to."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import UUID

import asyncpg

from pgchannels.database.connections import Connections
from pgchannels.database.failures import loss_recognised
from pgchannels.delivery.retry import repeat

_OPEN_TIMEOUT_SECONDS: Final = 30

logger: logging.Logger = logging.getLogger("pgchannels")


class Listener:
    """Keeps one connection on LISTEN, and makes a new one whenever it is lost.

    `on_listening` runs after each LISTEN, also the first: whatever was sent before must be read from the log.
    Until it is done, `holding` keeps back what is heard. `on_lost` and `on_back` tell of each interruption.
    """

    def __init__(
        self,
        connections: Connections,
        node: UUID,
        *,
        on_notification: Callable[[str], None],
        on_listening: Callable[[], Awaitable[None]],
        holding: Callable[[], AbstractContextManager[None]],
        on_lost: Callable[[], None],
        on_back: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._channel = str(node)
        self._on_notification = on_notification
        self._on_listening = on_listening
        self._holding = holding
        self._on_lost = on_lost
        self._on_back = on_back
        self._connection: asyncpg.Connection[Any] | None = None
        self._lost = asyncio.Event()
        self._is_interrupted = False
        self.reconnected: int = 0

    async def open(self) -> None:
        """Listen; raises what the database answers."""
        async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
            connection = self._connection = await self._connections.hold()
            connection.add_termination_listener(self._on_terminated)
            with self._holding():
                # LISTEN before reading: what is committed in between is seen twice and delivered once, never missed.
                with loss_recognised(connection):
                    await connection.add_listener(self._channel, self._on_notified)
                await self._on_listening()

    async def run(self) -> None:
        """Listen again whenever the connection is lost, for ever."""
        await repeat(self._listen_again, what_failed="could not listen again")

    def reconnect(self) -> None:
        """Give the connection up and make a new one."""
        self._lost.set()

    def close(self) -> None:
        """Drop the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_termination_listener(self._on_terminated)
            connection.terminate()

    async def _listen_again(self) -> None:
        await self._lost.wait()
        self._note_interruption()
        self.close()
        self._lost.clear()
        try:
            await self.open()
        except BaseException:
            self._lost.set()
            raise
        self._is_interrupted = False
        self.reconnected += 1
        logger.warning("listening again after a lost connection")
        self._on_back()

    def _note_interruption(self) -> None:
        if not self._is_interrupted:
            self._is_interrupted = True
            logger.warning("the listening connection was lost")
            self._on_lost()

    def _on_terminated(self, connection: object) -> None:
        if connection is self._connection:
            self._lost.set()

    def _on_notified(self, connection: object, _pid: int, _channel: str, text: object) -> None:
        # A connection that was given up may still have notifications of before: the new one reads them from the log.
        if connection is self._connection:
            self._on_notification(str(text))
