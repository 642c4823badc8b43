"""What fails at the database: the connection, or a statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import DBAPIError

from pgchannels.errors import DatabaseRefused, DatabaseUnavailable

# What says that the connection failed, not the statement: the same call may succeed on a new connection.
CONNECTION_FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a statement meets on a connection that is just being lost
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
    asyncpg.TransactionRollbackError,  # a deadlock with somebody else's locks
    asyncpg.ReadOnlySQLTransactionError,  # a standby, before it is promoted
)


@contextmanager
def loss_recognised(connection: "asyncpg.Connection[Any] | None") -> Iterator[None]:
    """Raise what the driver meets on a connection that is lost between two of its steps as what it is.

    It has let go of the connection's parts then, and asks None for them.
    """
    try:
        yield
    except AttributeError as error:
        if connection is None or not connection.is_closed():
            raise
        raise ConnectionResetError("the connection was lost") from error


def is_connection_failure(error: BaseException | None) -> bool:
    """Whether the connection failed rather than the statement, by the error or by any that caused it."""
    return _is_caused_by(error, CONNECTION_FAILURES)


def is_database_failure(error: BaseException | None) -> bool:
    """Whether the connection or a statement failed; anything else is a defect of pgchannels."""
    return _is_caused_by(error, (*CONNECTION_FAILURES, asyncpg.PostgresError, DBAPIError))


def explained(error: Exception) -> Exception:
    """What to tell of a failure of the database to whoever opens a layer; any other error as it is."""
    if is_connection_failure(error):
        return DatabaseUnavailable(f"cannot reach the database: {error!r}")
    if not is_database_failure(error):
        return error
    refusal = getattr(error, "orig", None) or error
    if getattr(refusal, "sqlstate", None) != asyncpg.InsufficientPrivilegeError.sqlstate:
        return DatabaseRefused(f"the database refused: {refusal}")
    return DatabaseRefused(f"the database refused: {refusal}; `pgchannels upgrade --grant-to ROLE` gives what it needs")


def _is_caused_by(error: BaseException | None, kinds: tuple[type[BaseException], ...]) -> bool:
    while error is not None:
        if isinstance(error, kinds):
            return True
        error = error.__cause__
    return False
