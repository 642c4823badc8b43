"""Connections to one database: one pooled for everything, and held ones for the hot places."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar

import asyncpg
from sqlalchemy import Connection, Executable, Row, event
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql import ClauseElement

from pgchannels.database.database import CONNECT_TIMEOUT_SECONDS
from pgchannels.database.failures import is_connection_failure, loss_recognised

STATEMENT_TIMEOUT_SECONDS: Final = 30

# The server that runs the other end may be gone without a word, or a firewall between forget the connection.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}

# Roles and databases may have other defaults: those that functions with several snapshots, and idle listeners, need.
# A plan is kept as long as its connection, and made while tables may be empty: by index, whatever statistics say.
_PREPARE: Final = """
    SELECT extract(epoch FROM clock_timestamp())::double precision,
           set_config('default_transaction_isolation', 'read committed', false),
           set_config('idle_session_timeout', '0', false),
           set_config('enable_seqscan', 'off', false),
           set_config('enable_bitmapscan', 'off', false),
           set_config('enable_hashjoin', 'off', false),
           set_config('enable_mergejoin', 'off', false),
           set_config('jit', 'off', false)
"""

T = TypeVar("T")


class Connections:
    """The connections that one event loop has to the database.

    :param unpooled: opens those that are held; without it, the pool does.
    """

    def __init__(self, engine: AsyncEngine, *, unpooled: AsyncEngine | None = None) -> None:
        self._unpooled = unpooled
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._one_at_a_time = asyncio.Lock()  # an engine of the user's may have a pool of many
        self._clock_offset = 0.0
        self._ahead: list[asyncpg.Connection[Any]] = []
        self._in_use: asyncpg.Connection[Any] | None = None
        self._pooled: asyncpg.Connection[Any] | None = None
        for connecting in filter(None, (engine, unpooled)):
            event.listen(connecting.sync_engine, "connect", lambda driver, _: driver.run_async(self._prepare))

    def database_time(self) -> float:
        """The database's clock, in seconds since 1970, as told by the last connection that was made; never fast."""
        return asyncio.get_running_loop().time() + self._clock_offset

    async def run(
        self, statement: Executable, *, timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS
    ) -> Sequence[Row[Any]]:
        """Run one statement by itself on the pooled connection and return its rows.

        :raises CONNECTION_FAILURES: the statement may or may not have run.
        """
        async with asyncio.timeout(timeout_seconds), self._one_at_a_time:
            with _cancellation_kept():
                return await self._run(statement)

    async def fetch(
        self, text: str, *arguments: object, timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS
    ) -> "Sequence[asyncpg.Record]":
        """As `run`, in a third of its time: the text of a statement, which the driver prepares once.

        :raises CONNECTION_FAILURES: the statement may or may not have run.
        """
        async with asyncio.timeout(timeout_seconds), self._one_at_a_time:
            with _cancellation_kept():
                async with self._driver_connection() as connection:
                    return await self._fetch(connection, text, arguments)

    def interrupt(self) -> None:
        """Make the statement that runs now fail, and the next one take a new connection: this one does not answer."""
        if self._in_use is not None:
            self._in_use.terminate()

    async def hold(self) -> "asyncpg.Connection[Any]":
        """A connection that belongs to the caller, who closes it."""
        while self._ahead:
            if not (connection := self._ahead.pop()).is_closed():
                return connection
        return await self._hold()

    async def hold_ahead(self, count: int) -> None:
        """Open connections for the next calls of `hold`, all at the same time if no pool is in the way."""
        if self._unpooled is not None:
            await together(*[self._hold_ahead() for _ in range(count)])

    async def _hold_ahead(self) -> None:
        self._ahead.append(await self._hold())

    async def _hold(self) -> "asyncpg.Connection[Any]":
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            with _cancellation_kept():
                pooled = await (self._unpooled or self._engine).raw_connection()
        connection = pooled.driver_connection
        assert isinstance(connection, asyncpg.Connection)
        pooled.detach()
        return connection

    async def run_sync(self, function: Callable[[Connection], T]) -> T:
        """Run a function with a synchronous connection, in a transaction of its own."""
        async with self._one_at_a_time, self._engine.connect() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                return await connection.run_sync(function)

    async def close(self) -> None:
        """Close the pooled connection, and those that nobody holds."""
        while self._ahead:
            self._ahead.pop().terminate()
        await self._engine.dispose()

    @asynccontextmanager
    async def _driver_connection(self) -> "AsyncIterator[asyncpg.Connection[Any]]":
        # What lies in the pool nobody else takes: checking it out and in again would take longer than the statement.
        if self._pooled is not None and not self._pooled.is_closed():
            yield self._pooled
            return
        async with self._engine.connect() as connection:
            driver_connection = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver_connection, asyncpg.Connection)
            self._pooled = driver_connection
            yield driver_connection

    async def _fetch(
        self, connection: "asyncpg.Connection[Any]", text: str, arguments: Sequence[object]
    ) -> "Sequence[asyncpg.Record]":
        self._in_use = connection
        try:
            with loss_recognised(connection):
                return await connection.fetch(text, *arguments)
        except BaseException as error:
            if not isinstance(error, asyncpg.PostgresError) or is_connection_failure(error):
                connection.terminate()
                await self._engine.dispose(close=False)  # the pool would hand it out once more
            raise
        finally:
            self._in_use = None

    async def _run(self, statement: Executable) -> Sequence[Row[Any]]:
        async with self._engine.connect() as connection:
            self._in_use = (await connection.get_raw_connection()).driver_connection
            try:
                with loss_recognised(self._in_use):
                    result = await connection.execute(statement)
            except Exception as error:
                if is_connection_failure(error):
                    await connection.invalidate()  # perhaps another server takes the next one
                raise
            finally:
                self._in_use = None
            return result.all() if result.returns_rows else []

    async def _prepare(self, connection: "asyncpg.Connection[Any]") -> None:
        _keep_alive(connection)
        try:
            with loss_recognised(connection):
                row = await connection.fetchrow(_PREPARE)
        except BaseException:
            connection.terminate()  # the pool would forget it as it is
            raise
        assert row is not None
        # Taken when the answer is here: the clock is behind by the way back at most, and never ahead.
        self._clock_offset = row[0] - asyncio.get_running_loop().time()


async def together(*calls: Coroutine[Any, Any, None]) -> None:
    """Run calls at the same time; when all have ended, raise the first one's error."""
    for failure in await asyncio.gather(*calls, return_exceptions=True):
        if failure is not None:
            raise failure


def driver_text(statement: ClauseElement) -> str:
    """The SQL of a statement as the driver takes it, parameters `$1` … in the order of their mention."""
    return str(statement.compile(dialect=registry.load("postgresql.asyncpg")()))


def _keep_alive(connection: "asyncpg.Connection[Any]") -> None:
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
