"""What a failure of the database means: whether to try again, and what to tell of it."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from sqlalchemy.exc import DBAPIError

from pgchannels.arguments import redacted
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


_NO_TLS: Final = "rejected SSL upgrade"  # as the driver says it
_Advice = tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]

_ADVICE_BY_NUMBER: Final = {
    errno.ECONNREFUSED: "start the server, or correct host and port",
    errno.ENOENT: "start the server, or correct the folder of its socket",
    errno.EACCES: "let this account use the folder of its socket, or connect by a host and port",
    errno.EHOSTUNREACH: "correct the host, or let this machine reach it",
    errno.ENETUNREACH: "correct the host, or let this machine reach its network",
}
_ADVICE: _Advice = ((asyncpg.InsufficientPrivilegeError, "`pgchannels upgrade --grant-to ROLE` gives what it needs"),)
_UNKNOWN_PARAMETER: Final = re.compile(r"unexpected keyword argument '(\w+)'")
_POOLERS_REFUSALS: Final = {
    "does not exist": "create it, or correct the name of the database, in the URL or in the pooler's [databases]",
    "no such database": "correct the name of the database, or add it to the pooler's [databases]",
    "authentication failed": "correct the user or the password, or the pooler's auth_file",
    "unsupported startup parameter": "name it in the pooler's ignore_startup_parameters, or leave it out",
    "admin console": "correct the name of the database: this one is the pooler's own",
}
_ADVICE_AT_OPENING: _Advice = (
    (TimeoutError, "correct host and port, or let them pass through the firewall"),
    (
        ssl.SSLCertVerificationError,
        "give the certificate of its authority as sslrootcert, and the host by its name in it",
    ),
    (ssl.SSLError, "correct sslmode, or the files of sslcert, sslkey and sslrootcert"),
    (socket.gaierror, "correct the name of the host"),
    (asyncpg.InvalidPasswordError, "correct the user or the password"),
    (asyncpg.InvalidAuthorizationSpecificationError, "correct the user, or let the server's pg_hba.conf admit it"),
    (asyncpg.InvalidCatalogNameError, "create it, or correct the name of the database"),
    (
        asyncpg.InsufficientPrivilegeError,
        "GRANT CONNECT ON DATABASE to the role, or membership of the role that it sets",
    ),
    (asyncpg.TooManyConnectionsError, "close others, or raise the limit: each event loop that receives needs three"),
    (
        (
            asyncpg.PostgresSyntaxError,
            asyncpg.UndefinedObjectError,
            asyncpg.CantChangeRuntimeParamError,
            asyncpg.InvalidParameterValueError,
        ),
        "correct the settings in `options`",
    ),
)


class HostsRefused(asyncpg.PostgresError):
    """Every host refused the connection, and trying again would not mend it; the text has the reason of each."""


class SessionShared(asyncpg.PostgresError):
    """A pooler stands between that gives each transaction another session."""

    def __str__(self) -> str:
        return (
            "a pooler stands between that gives each transaction another session, as PgBouncer in transaction mode"
            " does, and LISTEN needs one of its own; give the address of the server itself, or of a pooler in session"
            " mode"
        )


# The statement was prepared in another session.
LOST_STATEMENTS: Final = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)


class HostsUnreachable(ConnectionError):
    """No host can be used now; the text has the reason of each."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which database an error is about."""

    name: str
    hosts: str

    def __str__(self) -> str:
        # A URL may stand where a name should.
        return redacted(f"the database {self.name!r} at {self.hosts}") if self.hosts else "the database"


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
    is_refusal = isinstance(failure, asyncpg.ClientConfigurationError) or _advice_of_pooler(failure) is not None
    return isinstance(failure, CONNECTION_FAILURES) and not is_refusal


def is_undone(error: BaseException | None) -> bool:
    """Whether the server undid the statement for a reason that passes, and the connection is as good as before."""
    failure = _of_driver(error)
    return isinstance(failure, asyncpg.LockNotAvailableError) or is_notification_queue_full(error)


def is_too_late(error: BaseException | None) -> bool:
    """Whether the server refused a call of ours by its clock; see `refuse_late_call.sql`."""
    failure = _of_driver(error)
    return isinstance(failure, asyncpg.QueryCanceledError) and "too long to reach pgchannels" in str(failure)


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


def lacks_privilege(error: BaseException | None) -> bool:
    """Whether the role may not do what the statement does; a refused connection is something else."""
    return isinstance(_of_driver(error), asyncpg.InsufficientPrivilegeError)


def is_database_failure(error: BaseException | None) -> bool:
    """Whether the connection or a statement failed; anything else is a defect of pgchannels."""
    return _of_driver(error) is not None or isinstance(error, DBAPIError)


def explained(error: Exception, place: Place) -> Exception:
    """What to tell of a failure of the database to whoever opens a layer; any other error as it is."""
    if is_connection_failure(error):
        return DatabaseUnavailable(f"cannot reach {_told(error, place)}")
    if is_undone(error):
        return DatabaseUnavailable(f"{place} did not do it in time: {in_words(error)}")
    if not is_database_failure(error):
        return error
    if isinstance(_of_driver(error), HostsRefused):
        return DatabaseRefused(f"cannot open {_told(error, place)}")
    return DatabaseRefused(f"{place} refused: {in_words(error)}{advice(error)}")


def advice(error: BaseException) -> str:
    """What to do about a failure, as the end of a sentence; nothing where nobody knows."""
    failure = _of_driver(error) or error
    if isinstance(failure, HostsRefused | HostsUnreachable) and failure.__cause__ is not None:
        return advice_at_opening(failure.__cause__)
    return _advice(failure, _ADVICE)


def advice_at_opening(error: BaseException) -> str:
    """What to do when no connection can be opened to a host."""
    failure = _of_driver(error) or error
    if (of_pooler := _advice_of_pooler(failure)) is not None:
        return f"; {of_pooler}"
    if "root certificate file" in str(failure):
        return "; give the file as sslrootcert, or take sslmode=require, which encrypts and looks at no certificate"
    numbers = {getattr(failure, "errno", None), *map(int, _ERROR_NUMBER.findall(str(failure)))}
    by_number = tuple((OSError, text) for number, text in _ADVICE_BY_NUMBER.items() if number in numbers)
    if _NO_TLS in str(failure):
        return "; turn TLS on in the server, or leave sslmode out"
    return _advice(failure, _ADVICE_AT_OPENING + by_number)


def _advice_of_pooler(failure: object) -> str | None:
    """What to do when PgBouncer refuses: it has one code for everything, as for a broken protocol."""
    if not isinstance(failure, asyncpg.ProtocolViolationError):
        return None
    return next((text for words, text in _POOLERS_REFUSALS.items() if words in str(failure)), None)


def _advice(failure: BaseException, table: _Advice) -> str:
    return next((f"; {text}" for kinds, text in table if isinstance(failure, kinds)), "")


def _told(error: Exception, place: Place) -> str:
    its_own = isinstance(_of_driver(error), HostsRefused | HostsUnreachable)  # the text has the hosts
    return f"{f'the database {place.name!r} at ' if its_own else f'{place}: '}{in_words(error)}{advice(error)}"


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
        case asyncpg.InvalidSQLStatementNameError() | asyncpg.DuplicatePreparedStatementError():
            return str(SessionShared())
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return str(failure).partition("\n")[0]
        case DBAPIError():
            return str(failure.orig).partition("\n")[0]
        case RuntimeError() if "shutdown" in str(failure):  # of the pool of threads that looks names up
            return "the process is ending, and Python looks up no host names any more: send before it ends"
    if isinstance(failure, TypeError) and (named := _UNKNOWN_PARAMETER.search(str(failure))):
        return (
            f"asyncpg knows no parameter {named[1]!r}: take it out of the engine's URL or connect_args (TLS is `ssl`)"
        )
    kind = type(failure).__name__  # its text may hold anything
    return f"the driver failed with {kind}: it may not know a parameter of the URL, or of an engine's connect_args"


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
