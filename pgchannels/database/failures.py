"""What a database failure means: whether to retry."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import DBAPIError

# These say that the connection failed, not the statement: the same call may succeed on a new connection.
CONNECTION_FAILURES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # raised by a statement whose connection is just being lost
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
    asyncpg.TransactionRollbackError,  # a deadlock with somebody else's locks
    asyncpg.ReadOnlySQLTransactionError,  # a standby, before it is promoted
)

NOTIFICATION_QUEUE_FULL: Final = (
    "PostgreSQL's notification queue is full: a session that listens, perhaps in another database, has not read it,"
    " because it is in a transaction or its process is stopped"
)
_NOTIFICATIONS: Final = "async.c"  # the server's source file for them: its error texts may be in any language

_OF_DRIVER: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


_POOLERS_REFUSALS: Final = {
    "does not exist": "create it, or correct the name of the database, in the URL or in the pooler's [databases]",
    "no such database": "correct the name of the database, or add it to the pooler's [databases]",
    "authentication failed": "correct the user or the password, or the pooler's auth_file",
    "unsupported startup parameter": "name it in the pooler's ignore_startup_parameters, or leave it out",
    "admin console": "correct the name of the database: this one is the pooler's own",
}


# What Pgpool-II says, as an internal error, when its server is down.
_SERVER_IS_DOWN: Final = "failed to create a backend"


class HostsRefused(asyncpg.PostgresError):
    """Every host refused the connection, and a retry would not fix it; the text has the reason of each."""


class SessionShared(asyncpg.PostgresError):
    """A pooler in between gives each transaction another session."""

    def __str__(self) -> str:
        return (
            "a pooler stands between that gives each transaction another session, as PgBouncer in transaction mode"
            " does, and LISTEN needs one of its own; give the address of the server itself, as listen_url= beside this"
            " one or in place of it, or set poll=0.2 to do without LISTEN"
        )


NO_TRANSACTIONS: Final = "not allowed in statement pooling mode"  # PgBouncer does not translate its errors


class TransactionsRefused(asyncpg.PostgresError):
    """A pooler in between allows no transaction of several statements."""

    def __str__(self) -> str:
        return (
            "a pooler stands between that allows no transactions, as PgBouncer in statement mode does, and each"
            " statement needs one, for its settings; let the pooler use transaction mode for this database, or give"
            " the address of the server itself"
        )


class NothingHeard(ConnectionError):
    """The database answers, and none of its notifications arrives."""

    def __str__(self) -> str:
        return (
            "LISTEN receives nothing through this connection: something stands between that does not pass"
            " notifications on; give the address of the server itself, as listen_url= beside this one or in"
            " place of it, or set poll=0.2 to do without LISTEN"
        )


class NothingAnswered(TimeoutError):
    """The connection was accepted, and its first statement got no answer in time."""


IS_STANDBY: Final = "it is a standby"


class Standby(ConnectionError):
    """The server is a standby."""

    def __str__(self) -> str:
        return f"{IS_STANDBY}, which takes no writes until it is promoted"


# The statement was prepared in another session.
LOST_STATEMENTS: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)


class HostsUnreachable(ConnectionError):
    """No host can be used now; the text has the reason of each."""


@contextmanager
def loss_recognised(connection: "asyncpg.Connection[Any] | None") -> Iterator[None]:
    """Raise `ConnectionResetError` if the driver fails because the connection was lost between two of its steps.

    By then it has dropped the connection's parts, and looks up attributes of None.
    """
    try:
        yield
    except AttributeError as error:
        if connection is None or not connection.is_closed():
            raise
        raise ConnectionResetError("the connection was lost") from error


def is_connection_failure(error: BaseException | None) -> bool:
    """Whether the connection failed rather than the statement, by the error or the driver's error that caused it."""
    failure = of_driver(error)
    is_refusal = isinstance(failure, asyncpg.ClientConfigurationError) or advice_of_pooler(failure) is not None
    is_loss = isinstance(failure, CONNECTION_FAILURES) or _is_server_down(failure)
    return is_loss and not is_refusal


def _is_server_down(failure: object) -> bool:
    """Whether Pgpool-II has no connection to the server behind it."""
    return isinstance(failure, asyncpg.InternalServerError) and _SERVER_IS_DOWN in str(failure)


def is_undone(error: BaseException | None) -> bool:
    """Whether the server undid the statement for a temporary reason, and the connection is as good as before."""
    failure = of_driver(error)
    return isinstance(failure, asyncpg.LockNotAvailableError) or is_notification_queue_full(error)


def is_too_late(error: BaseException | None) -> bool:
    """Whether the server refused a call of ours as too late; see `refuse_late_call.sql`."""
    failure = of_driver(error)
    return isinstance(failure, asyncpg.QueryCanceledError) and "too long to reach pgchannels" in str(failure)


def is_notification_queue_full(error: BaseException | None) -> bool:
    """Whether the server accepts no notifications, because some session has not read the existing ones."""
    failure = of_driver(error)
    return isinstance(failure, asyncpg.ProgramLimitExceededError) and is_of_notifications(failure)


def is_of_notifications(message: asyncpg.PostgresError | asyncpg.PostgresLogMessage) -> bool:
    """Whether the message is from the part of the server that keeps notifications."""
    return getattr(message, "server_source_filename", None) == _NOTIFICATIONS


def is_passing(error: BaseException | None) -> bool:
    """Whether the same call may succeed later."""
    return is_connection_failure(error) or is_undone(error)


def lacks_database(error: BaseException | None) -> bool:
    """Whether the server has no such database."""
    failure = of_driver(error)
    failure = failure.__cause__ if isinstance(failure, HostsRefused) else failure
    return isinstance(failure, asyncpg.InvalidCatalogNameError)


def lacks_privilege(error: BaseException | None) -> bool:
    """Whether the role may not do what the statement does; a refused connection does not count."""
    return isinstance(of_driver(error), asyncpg.InsufficientPrivilegeError)


def is_database_failure(error: BaseException | None) -> bool:
    """Whether the connection or a statement failed; anything else is a defect of pgchannels."""
    return of_driver(error) is not None or isinstance(error, DBAPIError)


def advice_of_pooler(failure: object) -> str | None:
    """Return what to do when PgBouncer refuses; it has one error code for everything: a protocol violation."""
    if not isinstance(failure, asyncpg.ProtocolViolationError):
        return None
    return next((text for words, text in _POOLERS_REFUSALS.items() if words in str(failure)), None)


def of_driver(error: BaseException | None) -> BaseException | None:
    """Return the error, or the first of its causes, that the driver or the system raised."""
    while error is not None and not isinstance(error, _OF_DRIVER):
        error = error.__cause__
    return error
