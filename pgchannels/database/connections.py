"""The connections of one event loop: held ones of the driver, each with one job, and SQLAlchemy for what is rare."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any, Final, Self, TypeAlias, TypeVar

import asyncpg
from sqlalchemy import Connection, Executable
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from pgchannels.database.database import CONNECT_TIMEOUT_SECONDS, PIN_SETTINGS, Database, pin_settings, require_primary
from pgchannels.database.failures import is_connection_failure, loss_recognised

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
    SELECT extract(epoch FROM clock_timestamp())::double precision,
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
"""

# A session whose connection was lost goes on with its statement, and waits for its locks. Process IDs are used again.
_TAKE_OVER: Final = """
    SELECT pid, backend_start, (
        SELECT pg_catalog.pg_terminate_backend(former.pid, $3)
        FROM pg_catalog.pg_stat_get_activity($1) AS former
        WHERE former.backend_start = $2 AND pg_catalog.pg_has_role(former.usesysid, 'USAGE')
    )
    FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())
"""

DriverConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Records: TypeAlias = "Sequence[asyncpg.Record]"
T = TypeVar("T")


class HeldConnection:
    """A connection of the driver that is opened when it is needed, and anew when it was lost; one statement at a time.

    :param on_open: what each new connection is for: it runs before anything else on it.
    :param silence_seconds: a connection by which nothing comes for so long, though something is asked, is lost. None:
        whoever asks looks after that.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[DriverConnection]],
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
        self._session: tuple[int, datetime | None] = (0, None)  # of the last connection: its process, and its start

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
            connection = self._connection = await self._connect()
            if self._silence_seconds is not None:
                self._progress = _Progress.of(connection)
            try:
                with self.left_when_lost():
                    await self._take_over(connection)
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

    async def _take_over(self, connection: DriverConnection) -> None:
        """End the session of the connection before this one, should it go on in the server."""
        row = await connection.fetchrow(_TAKE_OVER, *self._session, 1000 * _LEAVE_TIMEOUT_SECONDS)
        assert row is not None
        self._session = row[0], row[1]

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

    :param keep: keep that one between two statements.
    :param silence_seconds: of that one; see `HeldConnection`.
    """

    def __init__(
        self, database: Database, *, keep: bool = True, silence_seconds: float = STATEMENT_TIMEOUT_SECONDS
    ) -> None:
        self.keep: bool = keep
        self._database = database
        self._engine = None if database.engine is None else _engine_like(database.engine)
        self._clock_offset = 0.0
        self._lock_wait_seconds = min(_LONGEST_LOCK_WAIT_SECONDS, silence_seconds * _LOCK_WAIT_OF_SILENCE)
        self._for_all = HeldConnection(self._open, silence_seconds=silence_seconds)
        self._held = [self._for_all]

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
        return asyncio.get_running_loop().time() + self._clock_offset

    def set_clock(self, seconds: float) -> None:
        """Take the clock from an answer that has just come: it is behind by the way back at most, and never ahead."""
        self._clock_offset = seconds - asyncio.get_running_loop().time()

    async def open(self) -> None:
        """Open the connection for all, so that the first statement need not wait for it."""
        await self._for_all.opened()

    async def fetch(self, text: str, *arguments: object, silence_seconds: float | None = None) -> Records:
        """Run a statement on the connection for all; see `HeldConnection.fetch`."""
        try:
            return await self._for_all.fetch(text, *arguments, silence_seconds=silence_seconds)
        finally:
            if not self.keep:
                await self.close()

    async def ask(self, statement: Executable, *, silence_seconds: float | None = None) -> Records:
        """As `fetch`, for a statement with its values, which is compiled each time."""
        return await self.fetch(*compiled(statement), silence_seconds=silence_seconds)

    async def close(self) -> None:
        """Close the connection for all."""
        await self._for_all.close()

    def abandon(self) -> None:
        """Close the sockets of all connections, when the event loop is closed."""
        for held in self._held:
            held.abandon()

    async def _open(self) -> DriverConnection:
        async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
            with _cancellation_kept():
                connection = await (self._database.open() if self._engine is None else _detached(self._engine))
            await self._prepare(connection)
        return connection

    async def _prepare(self, connection: DriverConnection) -> None:
        try:
            _keep_alive(connection)
            with loss_recognised(connection):
                row = await connection.fetchrow(_PREPARE, f"{1000 * self._lock_wait_seconds:.0f}ms")
        except BaseException:
            connection.terminate()
            raise
        assert row is not None
        self.set_clock(row[0])


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


def driver_text(statement: ClauseElement) -> str:
    """The SQL of a statement as the driver takes it, parameters `$1` … in the order of their mention."""
    return str(statement.compile(dialect=registry.load("postgresql.asyncpg")()))


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
    connection = pooled.driver_connection
    assert isinstance(connection, asyncpg.Connection)
    pooled.detach()
    try:
        await pin_settings(connection)
        await require_primary(connection)
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
