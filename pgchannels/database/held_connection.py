"""A driver connection with one job."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeAlias

import asyncpg

from pgchannels.database.driver import DriverConnection, Progress, Records, cancellation_kept, close_socket
from pgchannels.database.failures import is_connection_failure, loss_recognised
from pgchannels.database.sessionless import has_no_session

_LEAVE_TIMEOUT_SECONDS: Final = 1

# A session whose connection was lost continues its statement, and waits for its locks. One that a pooler has given to
# somebody else has lost its mark.
_END_SESSION: Final = """
    SELECT pg_terminate_backend(a.pid, $2) FROM pg_locks AS l, pg_stat_get_activity(l.pid) AS a
    WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.locktype = 'advisory' AND ((l.classid::bigint << 32) | l.objid::bigint) = $1 AND l.objsubid = 1
      AND l.granted AND pg_has_role(a.usesysid, 'USAGE')
"""

Mark: TypeAlias = int  # of a session: the number of an advisory lock that it holds
Statement: TypeAlias = tuple[object, ...]  # its text, and its values


class HeldConnection:
    """A driver connection that opens on first use, and again when it was lost; it runs one statement at a time.

    Whoever holds `turn` has the connection alone. `fetch` takes it for one statement.

    :param on_open: sets up each new connection for its job, before anything else runs on it.
    :param silence_seconds: a connection is lost if nothing arrives for this long while a statement runs. None: the
        caller checks that.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[DriverConnection, Mark | None]]],
        *,
        on_open: Callable[[DriverConnection], Awaitable[None]] | None = None,
        silence_seconds: float | None = None,
    ) -> None:
        self.on_open = on_open
        self._silence_seconds = silence_seconds
        self._connect = connect
        self._connection: DriverConnection | None = None
        self._progress: Progress
        self.turn: asyncio.Lock = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._mark: Mark | None = None  # of the last connection

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None and not self._connection.is_closed()

    async def opened(self) -> DriverConnection:
        """Return the connection; open it if there is none.

        :raises CONNECTION_FAILURES: the database could not be reached.
        """
        connection = self._connection
        if connection is None or connection.is_closed():
            await self._left()  # never more connections than promised
            connection, mark = await self._connect()
            self._connection = connection
            if self._silence_seconds is not None:
                self._progress = Progress.of(connection)
            try:
                with self.left_when_lost():
                    await self._take_over(connection, mark)
                    if self.on_open is not None:
                        await self.on_open(connection)
            except BaseException:
                self.leave()  # whatever failed, it is not ready for its job
                raise
        return connection

    async def fetch(
        self, text: str, *arguments: object, silence_seconds: float | None = None, then: Statement = ()
    ) -> Records:
        """Run a statement, which the driver prepares once, and return its rows.

        :param silence_seconds: replaces the connection's own. The time starts when the statement is sent, and restarts
            whenever anything arrives: a slow link with much to carry is not lost.
        :param then: another statement to run in the same transaction, on a connection without a session.
        :raises CONNECTION_FAILURES: the statement may or may not have run.
        """
        async with self.turn:
            return await self.fetch_in_turn(text, *arguments, silence_seconds=silence_seconds, then=then)

    async def fetch_in_turn(
        self, text: str, *arguments: object, silence_seconds: float | None = None, then: Statement = ()
    ) -> Records:
        """As `fetch`, for a caller that holds `turn`."""
        connection = await self.opened()
        if self._silence_seconds is None:
            with self.left_when_lost():
                return await _run(connection, text, *arguments, then=then)
        try:
            async with self._progress.required_within(silence_seconds or self._silence_seconds):
                with self.left_when_lost():
                    return await _run(connection, text, *arguments, then=then)
        except TimeoutError:
            self.leave()
            raise

    @contextmanager
    def left_when_lost(self) -> Iterator[None]:
        """Leave the connection if what runs on it fails, unless the server itself reports the error.

        If the caller cancels a statement, the driver cancels it in the server; the next statement waits for that.
        """
        try:
            with cancellation_kept(), loss_recognised(self._connection):
                yield
        except Exception as error:
            if not isinstance(error, asyncpg.PostgresError) or is_connection_failure(error):
                self.leave()
            raise
        finally:
            if has_no_session(self._connection) and self._connection.is_unfinished:
                self.leave()  # its transaction would hold its locks

    def leave(self) -> None:
        """Give the connection up, and cancel what runs on it: the server would continue it, and hold its locks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            leaving = asyncio.get_running_loop().create_task(_leave(connection), name="pgchannels leave a connection")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Close the connection; the next statement opens another one."""
        self.leave()
        await self._left()

    async def _take_over(self, connection: DriverConnection, mark: Mark | None) -> None:
        """End the session of the previous connection, in case it still runs in the server."""
        if self._mark is not None and mark is not None:
            await connection.execute(_END_SESSION, self._mark, 1000 * _LEAVE_TIMEOUT_SECONDS)
        self._mark = mark

    def abandon(self) -> None:
        """Close the socket once the event loop is closed: nothing else works there any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            close_socket(connection)

    async def _left(self) -> None:
        if self._leaving:
            await asyncio.wait(self._leaving)


async def _run(connection: DriverConnection, text: str, *arguments: object, then: Statement) -> Records:
    if not then:
        return await connection.fetch(text, *arguments)
    assert has_no_session(connection)
    async with connection.one_transaction():
        rows = await connection.fetch(text, *arguments)
        following, *values = then
        await connection.fetch(str(following), *values)
    return rows


async def _leave(connection: DriverConnection) -> None:
    # Closing cancels what runs, and waits until the server confirms that it has ended.
    with suppress(Exception):
        async with asyncio.timeout(_LEAVE_TIMEOUT_SECONDS):
            await connection.close()
    connection.terminate()
