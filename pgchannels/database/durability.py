"""Makes the log durable or fast, under traffic."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final, Literal

import asyncpg
from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError

from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from pgchannels.database.failures import of_driver
from pgchannels.database.revision import require_revision
from pgchannels.database.short_locks import holders, named
from pgchannels.database.statements.durability import choose_durability, durability_status, turn_outbox
from pgchannels.database.statements.reading import extent
from pgchannels.database.statements.retention import rotate
from pgchannels.database.tables import Schema
from pgchannels.errors import ConfigurationError, DatabaseUnavailable

Durability = Literal["durable", "fast"]

_PAUSE_SECONDS: Final = 0.2
_FIRST_REVISION: Final = "0002"


@dataclass(frozen=True, slots=True)
class Status:
    """What is chosen, whether it holds for messages that are published now, and whether all outlive a crash."""

    chosen: str
    holds: bool
    is_durable: bool


async def show(database: Database, schema: Schema) -> Status:
    """Return how durable the log is.

    :raises SchemaMissing: there are no tables, or they are older.
    """
    return await run_sync(database, lambda connection: _status(connection, schema))


async def choose(database: Database, schema: Schema, chosen: Durability, *, timeout_seconds: float) -> Status:
    """Make the log durable or fast; return once this holds for every message that is published from now on.

    Each step locks out others for 50 ms at most, and is tried again until the time is over. Older messages stay as
    they are, and leave with the retention.

    :raises ConfigurationError: somebody has chosen otherwise meanwhile.
    :raises DatabaseUnavailable: other sessions held locks for so long; the choice stays recorded, and calling this
        again completes it.
    """
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    await run_sync(database, lambda connection: _choose(connection, schema, chosen))
    while True:
        is_turned = await _done(database, turn_outbox(schema))
        while not (status := await show(database, schema)).holds and await _done(database, rotate(schema)):
            pass
        if status.chosen != chosen:
            raise ConfigurationError(f"the log is not {chosen}: somebody else has chosen {status.chosen} meanwhile")
        if is_turned and status.holds:
            return status
        if asyncio.get_running_loop().time() > deadline:
            raise DatabaseUnavailable(await run_sync(database, lambda connection: _obstacle(connection, schema)))
        await asyncio.sleep(_PAUSE_SECONDS)


async def _done(database: Database, statement: Executable) -> bool:
    """Run a statement; return false if it returns false, or if somebody else's lock is in the way."""
    try:
        return await run_sync(database, lambda connection: connection.execute(statement).scalar() is not False)
    except DBAPIError as error:
        if isinstance(of_driver(error), asyncpg.LockNotAvailableError | asyncpg.DeadlockDetectedError):
            return False
        raise


def _choose(connection: Connection, schema: Schema, chosen: str) -> None:
    require_revision(connection, schema.name, _FIRST_REVISION, what="durability")
    connection.execute(extent(schema))  # begins the log if there is none
    connection.execute(choose_durability(schema, chosen))


def _status(connection: Connection, schema: Schema) -> Status:
    require_revision(connection, schema.name, _FIRST_REVISION, what="durability")
    row: Any = connection.execute(durability_status(schema)).one_or_none()
    if row is None:
        connection.execute(extent(schema))
        row = connection.execute(durability_status(schema)).one()
    return Status(*row)


def _obstacle(connection: Connection, schema: Schema) -> str:
    return (
        "the choice is recorded, but does not hold yet: other sessions keep locks on tables in the schema"
        f" {schema.name!r}{named(holders(connection, schema.name))}. Run the command again when their transactions have"
        " ended"
    )
