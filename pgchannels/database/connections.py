"""Connections to one database: one pooled for everything, and held ones for the hot places."""

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import asyncpg
from sqlalchemy import URL, Connection, Executable, Row
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.sql import ClauseElement

from pgchannels.errors import ConfigurationError

CONNECT_TIMEOUT_SECONDS: Final = 10
STATEMENT_TIMEOUT_SECONDS: Final = 30

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
)

DatabaseTarget = str | URL | AsyncEngine
T = TypeVar("T")


class Database:
    """Where the database is: a URL as libpq or SQLAlchemy write it, or an engine whose settings are taken over."""

    def __init__(self, target: DatabaseTarget) -> None:
        self._engine = target if isinstance(target, AsyncEngine) else None
        self._url = "" if isinstance(target, AsyncEngine) else _driver_url(target)

    def connect(self) -> "Connections":
        """Connections for the running event loop; none is opened yet."""
        if self._engine is not None:
            sync_engine = self._engine.sync_engine
            return Connections(create_async_engine(sync_engine.url, pool=sync_engine.pool.recreate()))
        return Connections(
            create_async_engine("postgresql+asyncpg://", async_creator=self._open, pool_size=1, max_overflow=0)
        )

    async def _open(self) -> Any:
        return await asyncpg.connect(self._url, timeout=CONNECT_TIMEOUT_SECONDS)


class Connections:
    """The connections that one event loop has to the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._one_at_a_time = asyncio.Lock()  # an engine of the user's may have a pool of many

    async def run(self, statement: Executable) -> Sequence[Row[Any]]:
        """Run one statement by itself on the pooled connection and return its rows.

        :raises CONNECTION_FAILURES: the statement may or may not have run.
        """
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS), self._one_at_a_time:
            with _cancellation_kept():
                return await self._run(statement)

    async def hold(self) -> "asyncpg.Connection[Any]":
        """Open a connection that belongs to the caller, who closes it."""
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            with _cancellation_kept():
                pooled = await self._engine.raw_connection()
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
        """Close the pooled connection."""
        await self._engine.dispose()

    async def _run(self, statement: Executable) -> Sequence[Row[Any]]:
        async with self._engine.connect() as connection:
            result = await connection.execute(statement)
            return result.all() if result.returns_rows else []


def driver_text(statement: ClauseElement) -> str:
    """The SQL of a statement as the driver takes it, parameters `$1` … in the order of their mention."""
    return str(statement.compile(dialect=registry.load("postgresql.asyncpg")()))


def is_connection_failure(error: BaseException | None) -> bool:
    """Whether the connection failed rather than the statement, by the error or by any that caused it."""
    while error is not None:
        if isinstance(error, CONNECTION_FAILURES):
            return True
        error = error.__cause__
    return False


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


def _driver_url(target: str | URL) -> str:
    url = target.render_as_string(hide_password=False) if isinstance(target, URL) else target
    # Never show the URL: it may hold a password.
    if not isinstance(url, str) or not re.match(r"postgres(ql)?(\+\w+)?://", url):
        raise ConfigurationError(
            "the database must be given as 'postgresql://user:password@host:port/name', a SQLAlchemy URL of PostgreSQL"
            " or an AsyncEngine"
        )
    hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    if not all(re.fullmatch(r"(\[.*\]|[^:]*)(:\d*)?", host) for host in hosts):
        raise ConfigurationError("the URL of the database has a port that is no number")
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
