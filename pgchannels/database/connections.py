"""The connections of one event loop: held ones of the driver, each with one job, and SQLAlchemy for what is rare."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import Connection, Executable
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from pgchannels.database.database import CONNECT_TIMEOUT_SECONDS, PIN_SETTINGS, Database, no_host, prepare
from pgchannels.database.failures import LOST_STATEMENTS, Place, SessionShared, is_connection_failure, loss_recognised
from pgchannels.database.pooler import is_pooled, require_own_session
from pgchannels.database.tables import Schema, schema_named
from pgchannels.names import DEFAULT_SCHEMA

_OPEN_TIMEOUT_SECONDS: Final = CONNECT_TIMEOUT_SECONDS + 5
STATEMENT_TIMEOUT_SECONDS: Final = 30
_LEAVE_TIMEOUT_SECONDS: Final = 1
_LONGEST_LOCK_WAIT_SECONDS: Final = 5
_LOCK_WAIT_OF_SILENCE: Final = 0.25  # the server gives up before we take its silence for a lost connection

# The server that runs the other end may be gone without a word, or a firewall between forget the connection.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}

# Besides the settings that every connection of ours has. A plan is kept as long as its connection, and made while
# tables may be empty: by index, whatever statistics say.
_PREPARE: Final = """
    SELECT extract(epoch FROM clock_timestamp())::double precision, pid, backend_start,
           set_config('plan_cache_mode', 'force_generic_plan', false),
           set_config('enable_indexscan', 'on', false),
           set_config('enable_indexonlyscan', 'on', false),
           set_config('enable_nestloop', 'on', false),
           set_config('lock_timeout', $1, false),
           set_config('enable_seqscan', 'off', false),
           set_config('enable_bitmapscan', 'off', false),
           set_config('enable_hashjoin', 'off', false),
           set_config('enable_mergejoin', 'off', false),
           set_config('jit', 'off', false)
    FROM pg_stat_get_activity(pg_backend_pid())
"""

# A session whose connection was lost goes on with its statement, and waits for its locks. Process IDs are used again.
_END_SESSION: Final = """
    SELECT pg_terminate_backend(pid, $3) FROM pg_stat_get_activity($1)
    WHERE backend_start = $2 AND pg_has_role(usesysid, 'USAGE')
"""

# The driver asks the server about each type of an array, in some milliseconds a connection. Those of PostgreSQL's own
# types are the same everywhere: by name, the oids of the array and of its elements, in `pg_type.dat`.
_ARRAY_TYPES: Final = {"int4": (1007, 23), "int8": (1016, 20), "bytea": (1001, 17), "uuid": (2951, 2950)}

DriverConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Records: TypeAlias = "Sequence[asyncpg.Record]"
Session: TypeAlias = tuple[int, datetime]  # of a server process: its number, and its start
P = ParamSpec("P")
T = TypeVar("T")


class HeldConnection:
    """A connection of the driver that is opened when it is needed, and anew when it was lost; one statement at a time.

    :param on_open: what each new connection is for: it runs before anything else on it.
    :param silence_seconds: a connection by which nothing comes for so long, though something is asked, is lost. None:
        whoever asks looks after that.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[DriverConnection, Session]]],
        *,
        on_open: Callable[[DriverConnection], Awaitable[None]] | None = None,
        silence_seconds: float | None = None,
    ) -> None:
        self.on_open = on_open
        self._silence_seconds = silence_seconds
        self._connect = connect
        self._connection: DriverConnection | None = None
        self._progress: _Progress
        self._one_at_a_time = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._session: Session | None = None  # of the last connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as anybody has noticed."""
        return self._connection is not None and not self._connection.is_closed()

    async def opened(self) -> DriverConnection:
        """The connection, opened if there is none.

        :raises CONNECTION_FAILURES: the database could not be reached.
        """
        connection = self._connection
        if connection is None or connection.is_closed():
            await self._left()  # never one more than was promised
            connection, session = await self._connect()
            self._connection = connection
            if self._silence_seconds is not None:
                self._progress = _Progress.of(connection)
            try:
                with self.left_when_lost():
                    await self._take_over(connection, session)
                    if self.on_open is not None:
                        await self.on_open(connection)
            except BaseException:
                self.leave()  # whatever failed, it is not what it is for
                raise
        return connection

    async def fetch(self, text: str, *arguments: object, silence_seconds: float | None = None) -> Records:
        """Run a statement, which the driver prepares once, and return its rows.

        :param silence_seconds: in place of the connection's own. The time counts from when the statement is sent, and
            begins anew with whatever comes: a slow link with much on its way is no lost one.
        :raises CONNECTION_FAILURES: the statement may or may not have run.
        """
        async with self._one_at_a_time:
            connection = await self.opened()
            if self._silence_seconds is None:
                with self.left_when_lost():
                    return await connection.fetch(text, *arguments)
            try:
                async with self._progress.required_within(silence_seconds or self._silence_seconds):
                    with self.left_when_lost():
                        return await connection.fetch(text, *arguments)
            except TimeoutError:
                self.leave()
                raise

    @contextmanager
    def left_when_lost(self) -> Iterator[None]:
        """Leave the connection when what runs on it meanwhile fails otherwise than by the server's word.

        What the caller cancels the driver cancels in the server; the next statement waits for that.
        """
        try:
            with _cancellation_kept(), loss_recognised(self._connection):
                yield
        except Exception as error:
            if not isinstance(error, asyncpg.PostgresError) or is_connection_failure(error):
                self.leave()
            raise

    def leave(self) -> None:
        """Give the connection up. What runs on it is cancelled: in the server it would go on, and hold its locks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            leaving = asyncio.get_running_loop().create_task(_leave(connection), name="pgchannels leave a connection")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Close the connection; the next statement opens another one."""
        self.leave()
        await self._left()

    async def _take_over(self, connection: DriverConnection, session: Session) -> None:
        """End the session of the connection before this one, should it go on in the server."""
        if self._session is not None:
            await connection.execute(_END_SESSION, *self._session, 1000 * _LEAVE_TIMEOUT_SECONDS)
        self._session = session

    def abandon(self) -> None:
        """Close the socket, when the event loop is closed: nothing else can be done there any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _close_socket(connection)

    async def _left(self) -> None:
        if self._leaving:
            await asyncio.wait(self._leaving)


class Connections:
    """Opens the connections of one event loop, and runs on one of them what needs none of its own.

    :param schema: the name of the schema that the statements are about.
    :param keep: keep that one between two statements.
    :param silence_seconds: of that one; see `HeldConnection`.
    """

    def __init__(
        self,
        database: Database,
        schema: str = DEFAULT_SCHEMA,
        *,
        keep: bool = True,
        silence_seconds: float = STATEMENT_TIMEOUT_SECONDS,
    ) -> None:
        self.schema: Schema = schema_named(schema)
        self.keep: bool = keep
        self._database = database
        self._engine = None if database.engine is None else _engine_like(database.engine)
        self._clock_offset = 0.0
        self._lock_wait_seconds = min(_LONGEST_LOCK_WAIT_SECONDS, silence_seconds * _LOCK_WAIT_OF_SILENCE)
        self._looking_at_pooler = asyncio.Lock()
        self._has_own_sessions = False  # though there is a pooler
        self._asking = 0  # callers
        self._for_all = HeldConnection(self._open, silence_seconds=silence_seconds)
        self._held = [self._for_all]

    @property
    def place(self) -> Place:
        """Which database this is about, for errors."""
        return self._database.place

    def text(self, build: Callable[[Schema], ClauseElement]) -> str:
        """The SQL of a statement that is built without its values."""
        return driver_text(build, self.schema)

    def hold(self, *, on_open: Callable[[DriverConnection], Awaitable[None]] | None = None) -> HeldConnection:
        """A connection for one job; none is opened yet."""
        held = HeldConnection(self._open, on_open=on_open)
        self._held.append(held)
        return held

    def when_opened(self, on_open: Callable[[DriverConnection], Awaitable[None]]) -> None:
        """Run this whenever the connection for all is a new one, before anything else on it."""
        self._for_all.on_open = on_open

    def database_time(self) -> float:
        """The database's clock, in seconds since 1970, as it was told the last time; never fast."""
        return time.monotonic() + self._clock_offset

    def set_clock(self, seconds: float) -> None:
        """Take the clock from an answer that has just come: it is behind by the way back at most, and never ahead."""
        self._clock_offset = seconds - time.monotonic()

    async def open(self) -> None:
        """Open the connection for all, so that the first statement need not wait for it."""
        await self._for_all.opened()

    async def fetch(self, build: Callable[[Schema], ClauseElement], *arguments: object) -> Records:
        """Run a statement on the connection for all; see `text` and `HeldConnection.fetch`."""
        return await self._fetch(self.text(build), *arguments)

    async def ask(
        self, build: Callable[Concatenate[Schema, P], Executable], *values: P.args, **named: P.kwargs
    ) -> Records:
        """As `fetch`, for a rare statement: it is built with its values, and compiled, each time."""
        return await self._fetch(*compiled(build(self.schema, *values, **named)))

    async def ask_patiently(
        self,
        silence_seconds: float,
        build: Callable[Concatenate[Schema, P], Executable],
        *values: P.args,
        **named: P.kwargs,
    ) -> Records:
        """As `ask`, for a statement that takes its time."""
        statement = compiled(build(self.schema, *values, **named))
        return await self._fetch(*statement, silence_seconds=silence_seconds)

    async def close(self) -> None:
        """Close the connection for all."""
        await self._for_all.close()

    def abandon(self) -> None:
        """Close the sockets of all connections, when the event loop is closed."""
        for held in self._held:
            held.abandon()

    async def _fetch(self, text: str, *arguments: object, silence_seconds: float | None = None) -> Records:
        self._asking += 1
        try:
            return await self._for_all.fetch(text, *arguments, silence_seconds=silence_seconds)
        finally:
            self._asking -= 1
            if not self.keep and not self._asking:
                await self.close()

    async def _open(self) -> tuple[DriverConnection, Session]:
        async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
            connection = await self._connected()
            return connection, await self._prepare(connection)

    async def _connected(self) -> DriverConnection:
        with _cancellation_kept():
            if self._engine is None:
                return await self._database.open()
            try:
                return await _detached(self._engine)
            except Exception as failure:
                raise no_host({self.place.hosts: failure}) from failure

    async def _require_own_session(self, connection: DriverConnection) -> None:
        async with self._looking_at_pooler:  # one at a time, or each would get the session of another
            if not self._has_own_sessions:
                await require_own_session(connection, self._connected)
                self._has_own_sessions = True

    async def _prepare(self, connection: DriverConnection) -> Session:
        try:
            _keep_alive(connection)
            _know_array_types(connection)
            with loss_recognised(connection):
                row = await connection.fetchrow(_PREPARE, f"{1000 * self._lock_wait_seconds:.0f}ms")
            assert row is not None
            seconds, process, began_at, *_ = row
            if is_pooled(connection, process):
                await self._require_own_session(connection)
        except LOST_STATEMENTS as error:
            connection.terminate()
            raise SessionShared from error
        except BaseException:
            connection.terminate()
            raise
        self.set_clock(seconds)
        return process, began_at


class _Progress(asyncio.Protocol):
    """Hands on what comes by a connection, and counts the time from then on."""

    def __init__(self, driver: asyncio.Protocol) -> None:
        self._driver = driver
        self._limit: asyncio.Timeout | None = None
        self._seconds = 0.0

    @classmethod
    def of(cls, connection: DriverConnection) -> Self:
        """Put it between a connection's transport and the driver, which has no setting for this."""
        transport: asyncio.Transport = getattr(connection, "_transport")  # noqa: B009
        progress = cls(transport.get_protocol())  # type: ignore[arg-type]
        transport.set_protocol(progress)
        return progress

    @asynccontextmanager
    async def required_within(self, seconds: float) -> AsyncIterator[None]:
        """Raise `TimeoutError` when nothing comes for so long."""
        self._seconds = seconds
        async with asyncio.timeout(seconds) as self._limit:
            try:
                yield
            finally:
                self._limit = None

    def data_received(self, data: bytes) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)
        self._driver.data_received(data)

    def eof_received(self) -> bool | None:
        return self._driver.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._driver.connection_lost(error)

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()


async def run_sync(database: Database, function: Callable[[Connection], T]) -> T:
    """Run a function with a synchronous connection of SQLAlchemy, in a transaction of its own."""
    if database.engine is not None:
        engine = _engine_like(database.engine)
    else:
        engine = create_async_engine("postgresql+asyncpg://", async_creator=database.open, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                await connection.exec_driver_sql(PIN_SETTINGS)
                return await connection.run_sync(function)
    finally:
        await engine.dispose()


async def together(*calls: Coroutine[Any, Any, object]) -> None:
    """Run calls at the same time; when all have ended, raise the first one's error."""
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


@lru_cache(maxsize=1024)
def driver_text(build: Callable[[Schema], ClauseElement], schema: Schema) -> str:
    """The SQL of a statement as the driver takes it, parameters `$1` … in the order of their mention.

    To compile one takes a millisecond: it is done when it is first needed, once for all nodes of the process.
    """
    return str(build(schema).compile(dialect=registry.load("postgresql.asyncpg")()))


def compiled(statement: Executable) -> tuple[Any, ...]:
    """The SQL of a statement as of `driver_text`, and its values."""
    assert isinstance(statement, ClauseElement)
    text = statement.compile(dialect=registry.load("postgresql.asyncpg")())
    assert isinstance(text, SQLCompiler)
    return str(text), *(text.params[name] for name in text.positiontup or ())


async def _leave(connection: DriverConnection) -> None:
    # Closing cancels what runs, and waits for the server's word that it has ended.
    with suppress(Exception):
        async with asyncio.timeout(_LEAVE_TIMEOUT_SECONDS):
            await connection.close()
    connection.terminate()


def _close_socket(connection: DriverConnection) -> None:
    # The transport would ask its loop to do it. uvloop closes all sockets with the loop, and shows none.
    endpoint = getattr(connection, "_transport").get_extra_info("socket")  # noqa: B009
    if (its_socket := getattr(endpoint, "_sock", None)) is not None:
        with suppress(OSError):
            its_socket.shutdown(socket.SHUT_RDWR)  # also where a child of a fork has it, too
        its_socket.close()


def _engine_like(engine: AsyncEngine) -> AsyncEngine:
    return create_async_engine(engine.sync_engine.url, pool=engine.sync_engine.pool.recreate())


async def _detached(engine: AsyncEngine) -> DriverConnection:
    pooled = await engine.raw_connection()
    connection: DriverConnection = pooled.driver_connection  # type: ignore[assignment]  # or what stands for one
    pooled.detach()
    try:
        await prepare(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _keep_alive(connection: DriverConnection) -> None:
    endpoint = getattr(connection, "_transport").get_extra_info("socket")  # noqa: B009 -- asyncpg has no setting for this
    if endpoint.family == socket.AF_UNIX:
        return
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):  # not on every system
            endpoint.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _know_array_types(connection: DriverConnection) -> None:
    unused = dict.fromkeys(("basetype", "range_subtype", "attrtypoids", "attrnames", "basetype_name"))
    array = unused | {"ns": "pg_catalog", "kind": "b", "elemdelim": ",", "depth": 0}
    getattr(connection, "_protocol").get_settings().register_data_types(  # noqa: B009 -- as above
        [
            array | {"name": f"_{name}", "oid": oid, "elemtype": element, "elemtype_name": name}
            for name, (oid, element) in _ARRAY_TYPES.items()
        ]
    )


@contextmanager
def _cancellation_kept() -> Iterator[None]:
    # A statement that is cancelled may end as if it was not, or raise what its dying connection says instead.
    # A task that took this for a success, or for a failure to be tried again, would never end.
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    error = None
    try:
        yield
    except Exception as raised:
        error = raised
    if task.cancelling() > before:
        raise asyncio.CancelledError from error
    if error is not None:
        raise error
