"""Changes of tables that are in use: no wait for a lock is long, and what had to wait is tried again as a whole.

Everybody who wants a table waits behind a change that waits for it. So a change gives up soon, lets the others pass,
and comes back.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from pgchannels.database.failures import of_driver
from pgchannels.database.revision import upgrading_lock
from pgchannels.database.statements.holders import holders_query
from pgchannels.errors import DatabaseUnavailable

TIMEOUT_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 0.5
LOCK_TIMEOUT: Final = "100ms"
LOCKED_OUT: Final = ("55P03", "40P01")  # a lock was not available in time, or a deadlock
LOSING: Final = "55000"  # a downgrade loses something, see losses.py

_LIMIT_WAITING: Final = "SELECT pg_catalog.set_config('lock_timeout', '{limit}', true)"

T = TypeVar("T")


class Patience:
    """How long a change is tried again."""

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds: float = timeout_seconds
        self._deadline = time.monotonic() + timeout_seconds

    @property
    def is_over(self) -> bool:
        """Whether it should not be tried again."""
        return time.monotonic() >= self._deadline

    def locking(self, schema: str) -> list[str]:
        """Return statements that begin a try: other changes of the schema are waited for, and locks only shortly."""
        remaining = f"{max(1, round(1000 * (self._deadline - time.monotonic())))}ms"
        # Nobody waits behind this lock but others who change the schema.
        return [
            _LIMIT_WAITING.format(limit=remaining),
            upgrading_lock(schema),
            _LIMIT_WAITING.format(limit=LOCK_TIMEOUT),
        ]

    def exhausted(self, schema: str, holders: list[Any]) -> DatabaseUnavailable:
        """Return the error for a change that was never possible; `holders` are the rows of `holders_query`."""
        return DatabaseUnavailable(
            f"the tables in the schema {schema!r} were not changed: for {self.timeout_seconds:g} s, other sessions held"
            f" locks that this needs{named(holders)}. Run the command again when their transactions have ended, or"
            " end them with SELECT pg_terminate_backend(PID)"
        )


async def change_tables(
    database: Database, schema: str, change: Callable[[Connection], T], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> T:
    """Run a change in a transaction of its own, in another one whenever somebody's lock is in the way.

    :raises DatabaseUnavailable: others held locks for so long; nothing was changed, and the text names them.
    """
    patience = Patience(timeout_seconds)

    def begun(connection: Connection) -> T:
        for statement in patience.locking(schema):
            connection.exec_driver_sql(statement)
        return change(connection)

    try:
        return await with_short_locks(database, begun, patience)
    except DBAPIError as error:
        if not _is_locked_out(error):
            raise
        raise patience.exhausted(schema, await run_sync(database, lambda one: holders(one, schema))) from error


async def with_short_locks(database: Database, function: Callable[[Connection], T], patience: Patience) -> T:
    """Run a function in a transaction of its own, in another one whenever somebody's lock is in the way.

    :raises sqlalchemy.exc.DBAPIError: as the last try, once the patience is over; at once for any other reason.
    """

    def limited(connection: Connection) -> T:
        connection.exec_driver_sql(_LIMIT_WAITING.format(limit=LOCK_TIMEOUT))
        return function(connection)

    while True:
        try:
            return await run_sync(database, limited)
        except DBAPIError as error:
            if not _is_locked_out(error) or patience.is_over:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


def _is_locked_out(error: DBAPIError) -> bool:
    return isinstance(of_driver(error), asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError)


def holders(connection: Connection, schema: str) -> list[Any]:
    """Return the rows of `holders_query`."""
    return list(connection.exec_driver_sql(holders_query(schema)))


def named(holders: list[Any]) -> str:
    """Return a text to append that names them; empty if there are none."""
    return ": " + ", ".join(map(_in_words, holders)) if holders else ""


def _in_words(holder: Any) -> str:
    pid, application, role, began_at, of_upgrade = holder
    if pid is None:
        return "a prepared transaction (see pg_prepared_xacts)"
    since = f", since {began_at:%H:%M:%S} UTC" if began_at is not None else ""
    what = ", the lock of upgrades" if of_upgrade else ""
    return f"process {pid} ({application or 'unnamed'}, role {role}{since}{what})"
