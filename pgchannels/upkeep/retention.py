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
_TRIES_BEFORE_WARNING: Final = 4  # another node that rotates holds the same locks, for a moment
_LONGEST_PAUSE_SECONDS: Final = 20  # between tries in a row: after a longer one, perhaps nobody was there to rotate

logger: logging.Logger = logging.getLogger("pgchannels")


class Retention:
    """Keeps messages for as long as they may be needed, and the log as small as that allows.

    :param is_on_request: rotate only after `rotate_soon`: the database is not to be called for this alone.
    """

    def __init__(self, connections: Connections, *, expiry_seconds: float, is_on_request: bool = False) -> None:
        self._connections = connections
        self._requested = asyncio.Event() if is_on_request else None
        self._interval_seconds = min(_INTERVAL_SECONDS, expiry_seconds / 2)
        self._tries = 0  # in a row after which it was still due
        self._tried_at = 0.0  # by the database's clock, which also counts while the machine sleeps
        self._is_blocked: bool | None = False  # None: it is overdue, and only some tries will show whose fault it is

    async def run(self) -> None:
        """Rotate when it is due, forever; the first node to try does it."""
        await repeat(self._rotate_later, what_failed="could not rotate the log")

    def rotate_soon(self) -> None:
        """Rotate if it is due, without waiting for it."""
        if self._requested is not None:
            self._requested.set()

    async def _rotate_later(self) -> None:
        if self._requested is None or self._is_blocked is None:
            await asyncio.sleep(self._interval_seconds)
        else:
            await self._requested.wait()
            self._requested.clear()
        tries, self._tries = self._tries, 0  # unless the database answers
        try:
            for _ in range(_MOST_STEPS):  # each is a transaction of its own
                if not (await self._connections.ask(rotate))[0][0]:
                    break
        except asyncpg.LockNotAvailableError:
            logger.debug("somebody holds a lock on the log: rotating later")
        for is_due, is_overdue, clock in await self._connections.ask(rotation_is_overdue):
            self._connections.set_clock(clock)  # somebody may have set it
            is_in_a_row = 0 <= clock - self._tried_at <= _LONGEST_PAUSE_SECONDS
            self._tries = (tries if is_in_a_row else 0) + 1 if is_due else 0
            self._tried_at = clock
            self._report(is_overdue)

    def _report(self, is_overdue: bool) -> None:
        was_blocked = self._is_blocked
        if not is_overdue or was_blocked:
            self._is_blocked = is_overdue
        else:
            self._is_blocked = True if self._tries > _TRIES_BEFORE_WARNING else None
        if self._is_blocked and not was_blocked:
            logger.warning(
                "the log cannot rotate, and grows: another session holds locks on rows of %s.log_state or %s.stripe",
                self._connections.schema.name,
                self._connections.schema.name,
            )
        if was_blocked and not self._is_blocked:
            logger.warning("the log rotates again")
