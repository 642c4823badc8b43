"""Rotates the slots of the log."""

import asyncio
import logging
from typing import Final

import asyncpg

from pgchannels.database.connections import Connections
from pgchannels.database.retry import repeat
from pgchannels.database.statements.retention import rotate, rotation_is_overdue

_MOST_STEPS: Final = 33  # as many slots as there can be, plus the next one
_INTERVAL_SECONDS: Final = 2

logger: logging.Logger = logging.getLogger("pgchannels")


class Retention:
    """Keeps messages for as long as they may be needed, and the log as small as that allows.

    :param is_on_request: rotate only after `rotate_soon`: the database is not to be called for this alone.
    """

    def __init__(self, connections: Connections, *, expiry_seconds: float, is_on_request: bool = False) -> None:
        self._connections = connections
        self._requested = asyncio.Event() if is_on_request else None
        self._interval_seconds = min(_INTERVAL_SECONDS, expiry_seconds / 2)
        self._is_overdue = False

    async def run(self) -> None:
        """Rotate when it is due, forever; the first node to try does it."""
        await repeat(self._rotate_later, what_failed="could not rotate the log")

    def rotate_soon(self) -> None:
        """Rotate if it is due, without waiting for it."""
        if self._requested is not None:
            self._requested.set()

    async def _rotate_later(self) -> None:
        if self._requested is None:
            await asyncio.sleep(self._interval_seconds)
        else:
            await self._requested.wait()
            self._requested.clear()
        try:
            for _ in range(_MOST_STEPS):  # each is a transaction of its own
                if not (await self._connections.ask(rotate))[0][0]:
                    break
        except asyncpg.LockNotAvailableError:
            logger.debug("somebody holds a lock on the log: rotating later")
        await self._report()

    async def _report(self) -> None:
        was_overdue, rows = self._is_overdue, await self._connections.ask(rotation_is_overdue)
        for self._is_overdue, clock in rows:
            self._connections.set_clock(clock)  # somebody may have set it
        if self._is_overdue and not was_overdue:
            logger.warning(
                "the log cannot rotate, and grows: another session holds locks on rows of %s.log_state or %s.stripe",
                self._connections.schema.name,
                self._connections.schema.name,
            )
        if was_overdue and not self._is_overdue:
            logger.warning("the log rotates again")
