"""Where the database is, and how to connect to the server that takes writes."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, Final, Literal, Self

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from pgchannels.database.failures import (
    LOST_STATEMENTS,
    HostsRefused,
    HostsUnreachable,
    NothingAnswered,
    SessionShared,
    Standby,
    is_connection_failure,
    loss_recognised,
)
from pgchannels.database.functions import FUNCTION_TIMEOUT_SECONDS, answer_of, type_of
from pgchannels.database.passfile import password_in_file
from pgchannels.database.pooler import PoolableConnection
from pgchannels.database.sessionless import SessionlessConnection, has_no_session
from pgchannels.database.url import DatabaseTarget, DatabaseUrl, Host, parse_url
from pgchannels.database.wording import Place, advice_at_opening, in_words
from pgchannels.errors import ConfigurationError
from pgchannels.names import program_name
from pgchannels.options import Options

CONNECT_TIMEOUT_SECONDS: Final = 10
_NO_TLS: Final = "rejected SSL upgrade"  # in the driver's words
_STATEMENTS: Final = 100  # what the driver keeps by default
_LONGEST_NAME: Final = 63  # of an application, as of any name in the server

# In any other schema, a role that may create objects could define operators and functions that our statements run.
SEARCH_PATH: Final = "pg_catalog, pg_temp"

# A role or a database may set others; and not every server knows all of these.
_SETTINGS: Final = {
    "search_path": SEARCH_PATH,
    "default_transaction_isolation": "read committed",  # our functions take several snapshots
    "statement_timeout": "0",  # callers set their own limits
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",  # a session that listens is idle
    "work_mem": "16MB",  # a page of the log stays in memory, and never hits a temp_file_limit
    "TimeZone": "UTC",  # a day has 24 hours
    "default_tablespace": "",  # the log's tables use none
    "client_min_messages": "warning",  # the server's warning says who fills its queue of notifications
    "plpgsql.extra_errors": "none",
    "plpgsql.extra_warnings": "none",
    "restrict_nonsystem_relation_kind": "",  # we read views of our own
}


# A role, a database, the server or the URL chooses these; of a pooler's session, whoever had it before might.
_CHOSEN: Final = (
    "session_authorization",
    "role",  # behind the one that resets it
    "synchronous_commit",
    "default_transaction_read_only",
    "default_table_access_method",
    "lock_timeout",
)


def _pinning(settings: Mapping[str, str], *, until_end_of: Literal["session", "transaction"]) -> str:
    pairs = ", ".join(f"('{name}', '{value}')" for name, value in settings.items())
    is_local = "true" if until_end_of == "transaction" else "false"
    return f"""
        SELECT pg_catalog.count(pg_catalog.set_config(setting.name, setting.value, {is_local}))
        FROM (VALUES {pairs}) AS setting (name, value)
        WHERE pg_catalog.current_setting(setting.name, true) IS NOT NULL
    """  # noqa: S608


_PIN_SETTINGS: Final = _pinning(_SETTINGS, until_end_of="session")
PIN_SETTINGS_LOCALLY: Final = _pinning(_SETTINGS, until_end_of="transaction")

_LOOK_AT_SERVER: Final = """
    SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool
"""
_PREPARE: Final = f"{_LOOK_AT_SERVER}, ({_PIN_SETTINGS})"
_SETTINGS_SESSIONLESS: Final = "; ".join(
    (
        "SET LOCAL statement_timeout = 0",  # before all that takes longer
        _pinning(_SETTINGS | {"client_connection_check_interval": "1s"}, until_end_of="transaction"),
        *(f"SET LOCAL {name} TO DEFAULT" for name in _CHOSEN),
        # The transaction was begun as one that writes, whatever others left.
        "SELECT pg_catalog.set_config('transaction_read_only',"
        " pg_catalog.current_setting('default_transaction_read_only'), true)",
    )
)


Password = str | Callable[[], str | Awaitable[str]]
UrlSource = Callable[[], str | URL]


class Database:
    """Where the database is: a URL in the form of libpq or SQLAlchemy, or an engine whose settings are copied.

    :param target: one of these, or a function that returns the URL; it is called for each connection, in a thread.
    :param password: replaces the URL's. A function or coroutine function is called for each connection.
    :param server: the name that a layer with several servers gives it, for errors.
    :param option: the option that gives it, for errors.
    :raises ConfigurationError: the URL cannot be used, or asks for a server that takes no writes; or the engine uses
        another driver.
    """

    def __init__(
        self,
        target: DatabaseTarget | UrlSource,
        *,
        password: Password | None = None,
        server: str = "",
        option: str = "",
    ) -> None:
        self._server, self._option = server, option
        self.engine: AsyncEngine | None = _require_asyncpg(target) if isinstance(target, AsyncEngine) else None
        self._source: UrlSource | None = target if callable(target) else None
        self._url = parse_url(target) if isinstance(target, str | URL) else None
        if not (self.engine or self._source or self._url):
            parse_url(target)  # type: ignore[arg-type]  # raises an error that says what it should be
        self._password = _require_password(password, self.engine)
        self._latest: Host | None = None
        self.is_sessionless: bool = False
        self.listening: Database | None = None

    def reached_as(self, options: Options) -> Self:
        """Return it as a layer with these options reaches it: perhaps without sessions, and by another URL to listen.

        :raises ConfigurationError: an engine cannot be reached so; or the other URL cannot be used.
        """
        if self.engine is not None and options.is_sessionless:
            name = "listen_url" if options.poll is None else "poll"
            raise ConfigurationError(f"{name}= goes with a URL, and the layer has an AsyncEngine: give its URL instead")
        found = copy(self)
        found.is_sessionless = options.is_sessionless
        if options.listen_url is not None:
            with _naming("listen_url"):
                found.listening = Database(options.listen_url, password=self._password, option="listen_url")
        return found

    def without_sessions(self) -> Self:
        """Return it as a command reaches it: no session of a pooler keeps a setting or a statement."""
        found = copy(self)
        found.is_sessionless = self.engine is None
        return found

    @property
    def place(self) -> Place:
        """The database with its hosts and ports, for errors."""
        return replace(self._place(), server=self._server, option=self._option)

    @property
    def open_timeout_seconds(self) -> float:
        """How long `open` takes at most, whatever the hosts and the user's functions do."""
        functions = sum((self._source is not None, callable(self._password)))
        return CONNECT_TIMEOUT_SECONDS + functions * FUNCTION_TIMEOUT_SECONDS

    async def open(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect to the first host that is a primary, trying the last known primary first.

        The hosts take at most CONNECT_TIMEOUT_SECONDS, each of the user's functions FUNCTION_TIMEOUT_SECONDS. The pool
        of an engine opens its own connections.

        :raises HostsUnreachable: no host can be used now.
        :raises HostsRefused: the same, and no host is worth a retry.
        :raises ConnectionError: the function that returns the URL or the password failed, or was too slow.
        """
        assert self.engine is None, "the engine's pool opens its connections"
        if self._source is not None:
            self._url = parse_url(await answer_of(self._source, "the address of the database"))
        url = self._url
        assert url is not None
        url.user_name()  # fails now, not once per host
        password = await self._given_password() or url.password or os.environ.get("PGPASSWORD")
        failures: dict[Host, Exception] = {}
        for host in sorted(url.hosts, key=lambda host: host != self._latest):
            try:
                connection = await _open(url, host, password, is_sessionless=self.is_sessionless)
            except Exception as failure:  # whatever it is, another host may work
                failures[host] = failure
            else:
                self._latest = host
                return connection
        raise no_host(failures) from max(failures.values(), key=lambda failure: bool(advice_at_opening(failure)))

    def _place(self) -> Place:
        if self.engine is not None:
            return _place_of_engine(self.engine.url)
        return Place("", "") if self._url is None else _place_of(self._url)

    async def _given_password(self) -> str | None:
        if self._password is None:
            return None
        if isinstance(self._password, str):
            return str.__str__(self._password)  # the driver accepts no subclass of str
        password: object = await answer_of(self._password, "the password")
        if not isinstance(password, str):
            raise ConfigurationError(
                f"the function that gives the password returned {type_of(password)}: it must return a str"
            )
        return str.__str__(password)


def _place_of(url: DatabaseUrl) -> Place:
    return Place(url.database_name(), ", ".join(map(str, url.hosts)))


def _place_of_engine(url: URL) -> Place:
    try:
        return _place_of(parse_url(url))
    except ConfigurationError:  # only the engine must understand it
        return Place(url.database or "", f"{url.host or 'this machine'}:{url.port or 5432}")


def _require_asyncpg(engine: AsyncEngine) -> AsyncEngine:
    if engine.dialect.name != "postgresql" or engine.dialect.driver != "asyncpg":
        raise ConfigurationError(
            f"the AsyncEngine is one of {engine.dialect.name}+{engine.dialect.driver}, and a layer needs"
            " postgresql+asyncpg: give an engine that create_async_engine('postgresql+asyncpg://…') makes, or the URL"
        )
    return engine


def _require_password(password: object, engine: AsyncEngine | None) -> Any:
    if password is None or (engine is None and (isinstance(password, str) or callable(password))):
        return password
    if engine is not None:
        raise ConfigurationError(
            "password= goes with a URL; an AsyncEngine gets its password by its own event, `do_connect`"
        )
    raise ConfigurationError(f"password must be a str, or a function that returns one, and not {type_of(password)}")


async def _open(
    url: DatabaseUrl, host: Host, password: str | None, *, is_sessionless: bool
) -> "asyncpg.Connection[asyncpg.Record]":
    connection = None
    try:
        async with asyncio.timeout(_seconds_for_each(url)):
            with _other_servers_named(url):
                connection = await _connected(url, host, password, is_sessionless=is_sessionless)
            await prepare(connection)
    except TimeoutError as error:
        if connection is None:
            raise
        raise NothingAnswered from error
    return connection


@contextmanager
def _naming(option: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{option}: {error}") from None


@contextmanager
def _other_servers_named(url: DatabaseUrl) -> Iterator[None]:
    """Raise an error that says so if the server takes a question about TLS for anything but one."""
    try:
        yield
    except ConnectionError as error:
        if _NO_TLS in str(error) and not url.requires_tls:  # PostgreSQL would have answered yes or no
            raise ConnectionError("what answers there is no PostgreSQL server") from error
        raise


async def _connected(
    url: DatabaseUrl, host: Host, password: str | None, *, is_sessionless: bool
) -> "asyncpg.Connection[asyncpg.Record]":
    user, database = url.user_name(), url.database_name()
    if password is None:
        password = password_in_file(url.passfile, host=host.name, port=host.port, database=database, user=user)
    settings = {"application_name": f"pgchannels {program_name()}"[:_LONGEST_NAME]} | dict(url.settings)
    role = settings.pop("role", None) if is_sessionless else None  # the parameter would be one of the session
    connection = await asyncpg.connect(
        url.dsn,
        host=host.name or None,
        port=host.port,
        user=user,
        password=lambda: password,  # type: ignore[arg-type]  # for None, the driver would read the file itself
        database=database,
        server_settings=settings,
        target_session_attrs=SessionAttribute.any,  # whatever is asked for, we look for a primary ourselves
        connection_class=SessionlessConnection if is_sessionless else PoolableConnection,
        statement_cache_size=0 if is_sessionless else _STATEMENTS,
    )
    if has_no_session(connection):
        connection.settings = _SETTINGS_SESSIONLESS
        if role is not None:
            connection.settings += f"; SET LOCAL ROLE {_quoted(role)}"
    return connection


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _seconds_for_each(url: DatabaseUrl) -> float:
    # A host that does not answer must not use up the time of the others, nor of what follows the last one.
    hosts = len(url.hosts)
    seconds = CONNECT_TIMEOUT_SECONDS / (hosts + 1) if hosts > 1 else CONNECT_TIMEOUT_SECONDS
    return min(seconds, url.connect_timeout) if url.connect_timeout and url.connect_timeout > 0 else seconds


async def prepare(connection: "asyncpg.Connection[Any]") -> None:
    """Give a connection the settings that our statements need, whatever its role, its database or its URL sets.

    A connection that cannot have them is terminated.

    :raises ConnectionError: its server takes no writes, because it is a standby or its transactions are read-only.
    :raises SessionShared: a pooler has given it no session of its own.
    """
    try:
        await _prepare(connection)
    except BaseException:
        connection.terminate()
        raise


async def _prepare(connection: "asyncpg.Connection[Any]") -> None:
    with loss_recognised(connection):
        try:
            row = await connection.fetchrow(_LOOK_AT_SERVER if has_no_session(connection) else _PREPARE)
        except LOST_STATEMENTS as error:
            raise SessionShared from error
    assert row is not None
    is_standby, is_read_only = row[:2]
    if is_standby:
        raise Standby
    if is_read_only:
        raise ConnectionError("it takes no writes: default_transaction_read_only is on")


def no_host(failures: Mapping[Host, Exception] | Mapping[str, Exception], *, of_engine: bool = False) -> Exception:
    """Return the error to raise when no host gave a connection."""
    text = "; ".join(f"{host}: {in_words(failure, of_engine=of_engine)}" for host, failure in failures.items())
    if any(map(is_connection_failure, failures.values())):
        return HostsUnreachable(text)
    return HostsRefused(text)
