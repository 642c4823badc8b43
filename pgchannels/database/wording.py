"""How to report a database failure: what happened, where, and what to do."""

import errno
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Final, NoReturn

import asyncpg
from sqlalchemy.exc import DBAPIError

from pgchannels.arguments import redacted
from pgchannels.database.failures import (
    IS_STANDBY,
    NO_TRANSACTIONS,
    NOTIFICATION_QUEUE_FULL,
    HostsRefused,
    HostsUnreachable,
    NothingAnswered,
    NothingHeard,
    SessionShared,
    TransactionsRefused,
    advice_of_pooler,
    is_connection_failure,
    is_database_failure,
    is_notification_queue_full,
    is_undone,
    of_driver,
)
from pgchannels.database.hosted import hint
from pgchannels.errors import DatabaseRefused, DatabaseUnavailable, PgChannelsError

_ERROR_NUMBER: Final = re.compile(r"\[Errno (\d+)\]")


_LOST: Final = "unexpected connection_lost() call"  # in the driver's words


_Advice = tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]


_ADVICE_BY_NUMBER: Final = {
    errno.ECONNREFUSED: "start the server, or correct host and port",
    errno.ENOENT: "start the server, or correct the folder of its socket",
    errno.ENOTDIR: "correct the folder of its socket",
    errno.EACCES: "let this account use the folder of its socket, or connect by a host and port",
    errno.EHOSTUNREACH: "correct the host, or let this machine reach it",
    errno.ENETUNREACH: "correct the host, or let this machine reach its network",
}


_ADVICE: _Advice = ((asyncpg.InsufficientPrivilegeError, "`pgchannels upgrade --grant-to ROLE` gives what it needs"),)


_OF_ROLE: Final = re.compile(r'role "')


_TO_THE_PRIMARY: Final = "; give the address of the primary, or add it to the hosts"

_ASK_THE_SERVER: Final = "look into the log of the server for the reason, or correct host and port"


_ADVICE_BY_TEXT: Final = {
    "root certificate file": (
        "give the file as sslrootcert, or take sslmode=require, which encrypts and looks at no certificate"
    ),
    "rejected SSL upgrade": "turn TLS on in the server, leave sslmode out, or correct host and port",
    "no PostgreSQL server": "correct host and port",
    "default_transaction_read_only": ("turn it off for the role, the database or the server, or correct the host"),
    "AF_UNIX path too long": "correct the folder of its socket, or give it a shorter name",
    _LOST: _ASK_THE_SERVER,
}


_UNKNOWN_PARAMETER: Final = re.compile(r"unexpected keyword argument '(\w+)'")


_ADVICE_AT_OPENING: _Advice = (
    (
        NothingAnswered,
        "if a pooler stands between, it may have no session left: raise its default_pool_size, or look into the log of"
        " the server for the reason",
    ),
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
    ((ConnectionResetError, asyncpg.PostgresConnectionError), _ASK_THE_SERVER),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Which database an error is about; `server` is the name that a layer with several gives it.

    `option` is the one by which the layer was given it, if that is not the usual one.
    """

    name: str
    hosts: str
    server: str = ""
    option: str = ""

    @property
    def title(self) -> str:
        """The database without its hosts."""
        named = f"the database {self.name!r}" if self.name else "the database"
        of_server = f" of the server {self.server!r}" if self.server else ""
        of_option = f" of {self.option}" if self.option else ""
        return f"{named}{of_server}{of_option}"

    def __str__(self) -> str:
        # Somebody may have given a URL as the name.
        return redacted(f"{self.title} at {self.hosts}") if self.hosts else self.title


def explained(error: Exception, place: Place) -> Exception:
    """Return a database failure as the error that users get; any other error as it is."""
    if isinstance(error, PgChannelsError):
        return error
    if is_connection_failure(error):
        return DatabaseUnavailable(f"cannot reach {_told(error, place)}")
    if is_undone(error):
        return DatabaseUnavailable(f"{place} did not do it in time: {in_words(error)}")
    if not is_database_failure(error):
        return error
    if isinstance(of_driver(error), HostsRefused):
        return DatabaseRefused(f"cannot open {_told(error, place)}")
    return DatabaseRefused(f"{place} refused: {in_words(error)}{advice(error)}{_hint(error, place)}")


def raise_explained(error: Exception, place: Place) -> NoReturn:
    """Raise a database failure as the error that users get, with what it was as the cause; any other error as it is."""
    if (failure := explained(error, place)) is error:
        raise error  # which must not be its own cause
    raise failure from error


def advice(error: BaseException) -> str:
    """Return what to do about a failure, as the end of a sentence; empty if unknown."""
    failure = of_driver(error) or error
    if isinstance(failure, HostsRefused | HostsUnreachable) and failure.__cause__ is not None:
        return advice_at_opening(failure.__cause__) or (_TO_THE_PRIMARY if IS_STANDBY in str(failure) else "")
    return _advice(failure, _ADVICE)


def advice_at_opening(error: BaseException) -> str:
    """Return what to do when no connection to a host can be opened."""
    failure = of_driver(error) or error
    if (of_pooler := advice_of_pooler(failure)) is not None:
        return f"; {of_pooler}"
    if isinstance(failure, asyncpg.InvalidParameterValueError) and _OF_ROLE.match(str(failure)):
        return "; create the role, or correct the parameter `role`"
    if (by_text := next((text for words, text in _ADVICE_BY_TEXT.items() if words in str(failure)), None)) is not None:
        return f"; {by_text}"
    numbers = {getattr(failure, "errno", None), *map(int, _ERROR_NUMBER.findall(str(failure)))}
    by_number = tuple((OSError, text) for number, text in _ADVICE_BY_NUMBER.items() if number in numbers)
    return _advice(failure, _ADVICE_AT_OPENING + by_number)


def _advice(failure: BaseException, table: _Advice) -> str:
    return next((f"; {text}" for kinds, text in table if isinstance(failure, kinds)), "")


def _told(error: Exception, place: Place) -> str:
    its_own = isinstance(of_driver(error), HostsRefused | HostsUnreachable)  # the text names the hosts
    where = f"{place.title} at " if its_own else f"{place}: "
    return f"{where}{in_words(error)}{advice(error)}{_hint(error, place)}"


def _hint(error: Exception, place: Place) -> str:
    failure = of_driver(error)
    causes = {failure, failure.__cause__ if isinstance(failure, HostsRefused | HostsUnreachable) else failure}
    is_of_host = any(isinstance(cause, SessionShared | NothingHeard | TransactionsRefused) for cause in causes)
    return hint(place.hosts) if is_of_host or IS_STANDBY in str(failure) else ""


def in_words(error: BaseException, *, of_engine: bool = False) -> str:
    """Say what happened, in one line of plain words: never the repr of a driver's error, never a password.

    :param of_engine: whether an engine was opening a connection, which may call functions of the user.
    """
    failure = of_driver(error) or error
    match failure:
        case PgChannelsError():
            return str(failure)
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
        case asyncpg.InternalClientError():  # what a statement meets on a connection that is just being lost
            return "the connection was lost"
        case asyncpg.PostgresError() | asyncpg.InterfaceError():
            refused = NO_TRANSACTIONS in str(failure)
            return str(TransactionsRefused()) if refused else str(failure).partition("\n")[0]
        case DBAPIError():
            return str(failure.orig).partition("\n")[0]
        case RuntimeError() if "shutdown" in str(failure):  # from the thread pool that resolves names
            return "the process is ending, and Python looks up no host names any more: send before it ends"
    if isinstance(failure, TypeError) and (named := _UNKNOWN_PARAMETER.search(str(failure))):
        return (
            f"asyncpg knows no parameter {named[1]!r}: take it out of the engine's URL or connect_args (TLS is `ssl`)"
        )
    kind = type(failure).__name__  # its text may hold anything
    reason = (
        "of the engine's URL or connect_args, or an event or the creator of the engine raised it"
        if of_engine
        else "of the URL, or of an engine's connect_args"
    )
    return f"the driver failed with {kind}: it may not know a parameter {reason}"


def _system_text(failure: OSError) -> str:
    # If a name has several addresses, the event loop joins the reprs of several errors into one text.
    numbers = dict.fromkeys(_ERROR_NUMBER.findall(str(failure)))
    if not numbers:
        return "the connection was closed" if str(failure) == _LOST else str(failure) or "the connection was lost"
    return ", ".join(os.strerror(int(number)).lower() for number in numbers)
