"""The connections of one event loop: some with one job each, and a shared one for everything else."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import ClauseElement

from pgchannels.database.compiling import compiled, driver_text
from pgchannels.database.database import PIN_SETTINGS_LOCALLY, Database, no_host, prepare
from pgchannels.database.driver import DriverConnection, Records, cancellation_kept, keep_alive, know_array_types
from pgchannels.database.failures import LOST_STATEMENTS, SessionShared, loss_recognised
from pgchannels.database.held_connection import HeldConnection, Mark, Statement
from pgchannels.database.pooler import is_poolable, is_pooled, require_own_session
from pgchannels.database.sessionless import has_no_session
from pgchannels.database.tables import Schema, schema_named
from pgchannels.database.wording import Place
from pgchannels.names import DEFAULT_SCHEMA

_PREPARE_TIMEOUT_SECONDS: Final = 5
STATEMENT_TIMEOUT_SECONDS: Final = 30
_LONGEST_LOCK_WAIT_SECONDS: Final = 5
_LOCK_WAIT_OF_SILENCE: Final = 0.25  # the server gives up before we take its silence for a lost connection

# In addition to the settings of all our connections. A plan lives as long as its connection, and may be made while
# tables are empty: so it uses indexes, whatever the statistics say.
_SETTINGS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
_CLOCK: Final = "SELECT extract(epoch FROM clock_timestamp())::double precision"
_PREPARE: Final = f"""
    {_CLOCK}, pg_backend_pid(), pg_backend_pid() = $2 AND pg_try_advisory_lock($3),
           set_config('lock_timeout', $1, false),
           {", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())}
"""
_SET_IN_TRANSACTION: Final = "; ".join(f"SET LOCAL {name} = '{value}'" for name, value in _SETTINGS.items())

P = ParamSpec("P")
T = TypeVar("T")


class Connections:
    """Opens the connections of one event loop, and shares one for statements that need no connection of their own.

    :param schema: the name of the schema that the statements use.
    :param keep: keep the shared connection open between statements.
    :param is_writer_shared: send on the shared connection as well.
    :param silence_seconds: of the shared connection; see `HeldConnection`.
    """

    def __init__(
        self,
        database: Database,
        schema: str = DEFAULT_SCHEMA,
        *,
        keep: bool = True,
        is_writer_shared: bool = False,
        silence_seconds: float = STATEMENT_TIMEOUT_SECONDS,
    ) -> None:
        self.schema: Schema = schema_named(schema)
        self.keep: bool = keep
        self._database = database
        self._engine = None if database.engine is None else _engine_like(database.engine)
        self._clock_offset = 0.0
        self.clock_readings: int = 0
        self._lock_wait_seconds = min(_LONGEST_LOCK_WAIT_SECONDS, silence_seconds * _LOCK_WAIT_OF_SILENCE)
        self._looking_at_pooler = asyncio.Lock()
        self._has_own_sessions = False  # even through a pooler
        self._asking = 0  # callers
        self._for_all = HeldConnection(self._open, silence_seconds=silence_seconds)
        self._is_writer_shared = is_writer_shared
        # So only one of these calls waits for its turn on a connection that also sends: they alternate.
        self._one_at_a_time = asyncio.Lock()
        self._held = [self._for_all]

    @property
    def place(self) -> Place:
        """Which database this is, for errors."""
        return self._database.place

    def text(self, build: Callable[[Schema], ClauseElement]) -> str:
        """Return the SQL of a statement that is built without its values."""
        return driver_text(build, self.schema)

    def hold(self, *, on_open: Callable[[DriverConnection], Awaitable[None]] | None = None) -> HeldConnection:
        """Return a connection for one job; it is not opened yet."""
        held = HeldConnection(self._open, on_open=on_open)
        self._held.append(held)
        return held

    def hold_to_write(self) -> HeldConnection:
        """Return the connection that sends: one for this job, or the shared one. `release` closes it."""
        return self._for_all if self._is_writer_shared else self.hold()

    async def release(self, held: HeldConnection) -> None:
        """Close a connection for one job; the shared one stays open until `close`."""
        if held is not self._for_all:
            await held.close()

    @property
    def is_sessionless(self) -> bool:
        """Whether each statement is a transaction of its own, perhaps in another session."""
        return self._database.is_sessionless

    def when_opened(self, on_open: Callable[[DriverConnection], Awaitable[None]]) -> None:
        """Run this on each new shared connection, before anything else."""
        self._for_all.on_open = on_open

    def database_time(self) -> float:
        """Return the database's time, in seconds since 1970, by its last answer; it is never ahead."""
        return time.monotonic() + self._clock_offset

    def set_clock(self, seconds: float) -> None:
        """Set the clock by an answer that has just arrived: it lags by the return trip at most, and is never ahead."""
        self._clock_offset = seconds - time.monotonic()
        self.clock_readings += 1

    async def open(self) -> None:
        """Open the shared connection, so that the first statement need not wait for it."""
        await self._for_all.opened()

    async def fetch(self, build: Callable[[Schema], ClauseElement], *arguments: object) -> Records:
        """Run a statement on the shared connection; see `text` and `HeldConnection.fetch`."""
        return await self._fetch(self.text(build), *arguments)

    async def fetch_text(self, text: str, *arguments: object, then: Statement = ()) -> Records:
        """As `fetch`, for the text of a statement; see `HeldConnection.fetch` for `then`."""
        return await self._fetch(text, *arguments, then=then)

    async def ask(
        self, build: Callable[Concatenate[Schema, P], Executable], *values: P.args, **named: P.kwargs
    ) -> Records:
        """Like `fetch`, for a rare statement: it is built with its values, and compiled, each time."""
        return await self._fetch(*compiled(build(self.schema, *values, **named)))

    async def ask_patiently(
        self,
        silence_seconds: float,
        build: Callable[Concatenate[Schema, P], Executable],
        *values: P.args,
        **named: P.kwargs,
    ) -> Records:
        """Like `ask`, for a slow statement."""
        statement = compiled(build(self.schema, *values, **named))
        return await self._fetch(*statement, silence_seconds=silence_seconds)

    async def close(self) -> None:
        """Close the shared connection."""
        await self._for_all.close()

    def abandon(self) -> None:
        """Close the sockets of all connections, once the event loop is closed."""
        for held in self._held:
            held.abandon()

    async def _fetch(
        self, text: str, *arguments: object, silence_seconds: float | None = None, then: Statement = ()
    ) -> Records:
        self._asking += 1
        try:
            async with self._one_at_a_time:
                return await self._for_all.fetch(text, *arguments, silence_seconds=silence_seconds, then=then)
        finally:
            self._asking -= 1
            if not self.keep and not self._asking:
                await self.close()

    async def _open(self) -> tuple[DriverConnection, Mark | None]:
        async with asyncio.timeout(self._database.open_timeout_seconds + _PREPARE_TIMEOUT_SECONDS):
            connection = await self._connected()
            return connection, await self._prepare(connection)

    async def _connected(self) -> DriverConnection:
        with cancellation_kept():
            if self._engine is None:
                return await self._database.open()
            try:
                return await _detached(self._engine)
            except Exception as failure:
                raise no_host({self.place.hosts: failure}, of_engine=True) from failure

    async def _require_own_session(self, connection: DriverConnection) -> None:
        async with self._looking_at_pooler:  # one at a time, or each would get the session of another
            if not self._has_own_sessions:
                await require_own_session(connection, self._connected)
                self._has_own_sessions = True

    async def _prepare(self, connection: DriverConnection) -> Mark | None:
        lock_wait = f"{1000 * self._lock_wait_seconds:.0f}ms"
        try:
            keep_alive(connection)
            know_array_types(connection)
            with loss_recognised(connection):
                if has_no_session(connection):
                    connection.settings += f"; SET LOCAL lock_timeout = '{lock_wait}'; {_SET_IN_TRANSACTION}"
                    [(seconds,)] = await connection.fetch(_CLOCK)
                    self.set_clock(seconds)
                    return None
                mark = secrets.randbits(63)
                row = await connection.fetchrow(_PREPARE, lock_wait, connection.get_server_pid(), mark)
            assert row is not None
            seconds, process, is_marked, *_ = row
            if is_pooled(connection, process):
                if is_poolable(connection):
                    connection.is_pooled = True
                await self._require_own_session(connection)
        except LOST_STATEMENTS as error:
            connection.terminate()
            raise SessionShared from error
        except BaseException:
            connection.terminate()
            raise
        self.set_clock(seconds)
        return mark if is_marked else None


async def run_sync(database: Database, function: Callable[[Connection], T]) -> T:
    """Run a function with a synchronous SQLAlchemy connection, in a transaction of its own.

    The session may be one of a pooler, for everybody: it is left as it was.
    """
    engine = _engine_without_sessions(database) if database.engine is None else _engine_like(database.engine)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="READ COMMITTED")
            async with connection.begin():
                if database.engine is not None:  # a connection without sessions has them already
                    await connection.exec_driver_sql(PIN_SETTINGS_LOCALLY)
                return await connection.run_sync(function)
    finally:
        await engine.dispose()


async def together(*calls: Coroutine[Any, Any, object]) -> None:
    """Run calls concurrently; when all have ended, raise the first error, in the order of the calls."""
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _engine_without_sessions(database: Database) -> AsyncEngine:
    def connect() -> Any:
        return engine.sync_engine.dialect.loaded_dbapi.connect(
            async_creator_fn=database.without_sessions().open,
            prepared_statement_cache_size=0,
            prepared_statement_name_func=str,  # none
        )

    engine = create_async_engine("postgresql+asyncpg://", creator=connect, poolclass=NullPool)
    return engine


def _engine_like(engine: AsyncEngine) -> AsyncEngine:
    return create_async_engine(engine.sync_engine.url, pool=engine.sync_engine.pool.recreate())


async def _detached(engine: AsyncEngine) -> DriverConnection:
    pooled = await engine.raw_connection()
    connection: DriverConnection = pooled.driver_connection  # type: ignore[assignment]  # or what stands for one
    pooled.detach()
    await prepare(connection)
    return connection
