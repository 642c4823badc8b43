"""What a failure of the database means: whether to try again, and what to tell of it."""

import os
import re
import socket
import ssl
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

NOTIFICATION_QUEUE_FULL: Final = (
    "PostgreSQL's notification queue is full: a session that listens, perhaps in another database, has not read it,"
    " because it is in a transaction or its process is stopped"
)
_NOTIFICATIONS: Final = "async.c"  # where the server's code has them: the words of its errors are in any language

_OF_DRIVER: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_ERROR_NUMBER: Final = re.compile(r"\[Errno (\d+)\]")


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
    """Whether the connection failed rather than the statement, by the error or by the driver's that caused it."""
    failure = _of_driver(error)
    return isinstance(failure, CONNECTION_FAILURES) and not isinstance(failure, asyncpg.ClientConfigurationError)


def is_undone(error: BaseException | None) -> bool:
    """Whether the server undid the statement for a reason that passes, and the connection is as good as before."""
    failure = _of_driver(error)
    return isinstance(failure, asyncpg.LockNotAvailableError) or is_notification_queue_full(error)


def is_notification_queue_full(error: BaseException | None) -> bool:
    """Whether the server takes no notification, since somebody has not read those that there are."""
    failure = _of_driver(error)
    return isinstance(failure, asyncpg.ProgramLimitExceededError) and is_of_notifications(failure)


def is_of_notifications(message: asyncpg.PostgresError | asyncpg.PostgresLogMessage) -> bool:
    """Whether the part of the server that keeps notifications says this."""
    return getattr(message, "server_source_filename", None) == _NOTIFICATIONS


def is_passing(error: BaseException | None) -> bool:
    """Whether the same call may succeed later."""
    return is_connection_failure(error) or is_undone(error)


def is_database_failure(error: BaseException | None) -> bool:
    """Whether the connection or a statement failed; anything else is a defect of pgchannels."""
    return _of_driver(error) is not None or isinstance(error, DBAPIError)


def explained(error: Exception) -> Exception:
    """What to tell of a failure of the database to whoever opens a layer; any other error as it is."""
    if is_connection_failure(error):
        return DatabaseUnavailable(f"cannot reach the database: {in_words(error)}")
    if is_undone(error):
        return DatabaseUnavailable(f"the database did not do it in time: {in_words(error)}")
    if not is_database_failure(error):
        return error
    refusal = _of_driver(error) or error
    if getattr(refusal, "sqlstate", None) != asyncpg.InsufficientPrivilegeError.sqlstate:
        return DatabaseRefused(f"the database refused: {refusal}")
    return DatabaseRefused(f"the database refused: {refusal}; `pgchannels upgrade --grant-to ROLE` gives what it needs")


def in_words(error: BaseException) -> str:
    """What happened, in one line of plain words: never the representation of a driver's error, never a password."""
    failure = _of_driver(error) or error
    match failure:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLCertVerificationError():
            return f"its certificate was refused: {getattr(failure, 'verify_message', 'unknown reason')}"
        case ssl.SSLError():
            reason = getattr(failure, "reason", None) or "unknown reason"  # only OpenSSL gives one
            return f"TLS failed: {reason.replace('_', ' ').lower()}"
        case socket.gaierror():
            return "its name cannot be resolved"
        case OSError():
            return _system_text(failure)
        case asyncpg.LockNotAvailableError():
            return "somebody holds a lock that it waits for"
        case asyncpg.ProgramLimitExceededError() if is_notification_queue_full(failure):
            return NOTIFICATION_QUEUE_FULL
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return str(failure).partition("\n")[0]
    return f"the driver failed with {type(failure).__name__}"  # its text may hold anything


def _system_text(failure: OSError) -> str:
    # For several addresses of a name, the event loop puts the representations of several errors into one text.
    numbers = dict.fromkeys(_ERROR_NUMBER.findall(str(failure)))
    if not numbers:
        return str(failure) or "the connection was lost"
    return ", ".join(os.strerror(int(number)).lower() for number in numbers)


def _of_driver(error: BaseException | None) -> BaseException | None:
    """The error, or the first that caused it, that the driver or the system raised."""
    while error is not None and not isinstance(error, _OF_DRIVER):
        error = error.__cause__
    return error
