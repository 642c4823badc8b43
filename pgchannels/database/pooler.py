"""Poolers: detects one that gives each transaction another session, such as PgBouncer in transaction mode."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import asyncpg

from pgchannels.database.failures import LOST_STATEMENTS, NO_TRANSACTIONS, SessionShared, TransactionsRefused

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection  # generic for type checkers only

_ROUNDS: Final = 3
_OTHER_SECONDS: Final = 3
_SESSION: Final = "SELECT pg_catalog.pg_backend_pid()"


class PoolableConnection(_Connection):
    """Ends when a statement is cancelled, if a pooler is in between.

    A request to cancel could meet the statement of somebody else, whom the pooler has given the session by then.
    """

    is_pooled: bool = False

    def _cancel_current_command(self, *arguments: Any) -> None:
        """Called by the driver."""
        if self.is_pooled:
            self.terminate()
        else:
            super()._cancel_current_command(*arguments)  # type: ignore[misc]


def is_poolable(connection: object) -> TypeGuard[PoolableConnection]:
    """Whether a connection is of this class, as those of an engine are not; `isinstance` says so of every one."""
    return PoolableConnection in type(connection).__mro__


def is_pooled(connection: "asyncpg.Connection[Any]", session: int) -> bool:
    """Whether something other than the server answered the connection, by the process ID of its session."""
    return connection.get_server_pid() != session


async def require_own_session(
    connection: "asyncpg.Connection[Any]", open_other: Callable[[], Awaitable["asyncpg.Connection[Any]"]]
) -> None:
    """Require that a pooler has given the connection a session of its own.

    :param open_other: opens another connection. If the pooler shares sessions, the other one gets the session of the
        first in a transaction, or the first is moved to another session meanwhile. This takes several rounds, since
        other clients may get in between.
    :raises SessionShared: the pooler shares sessions.
    :raises TransactionsRefused: it allows no transactions either.
    """
    with suppress(TimeoutError, ConnectionError):  # a pooler in session mode may have no session left
        for _ in range(_ROUNDS):
            async with asyncio.timeout(_OTHER_SECONDS):
                other = await open_other()
            await _require_another_session_for_another(connection, other)


async def _require_another_session_for_another(
    connection: "asyncpg.Connection[Any]", other: "asyncpg.Connection[Any]"
) -> None:
    try:
        async with asyncio.timeout(_OTHER_SECONDS):
            before = await connection.fetchval(_SESSION)
            await other.execute("BEGIN")
            between = await other.fetchval(_SESSION)
        after = await _answer_beside_a_transaction(connection)
    except LOST_STATEMENTS as error:
        raise SessionShared from error
    except asyncpg.PostgresError as error:
        if NO_TRANSACTIONS in str(error):
            raise TransactionsRefused from error
        raise
    finally:
        other.terminate()
    if between == before or after != before:
        raise SessionShared


async def _answer_beside_a_transaction(connection: "asyncpg.Connection[Any]") -> object:
    try:
        async with asyncio.timeout(_OTHER_SECONDS):
            return await connection.fetchval(_SESSION)
    except TimeoutError as error:  # it waits for the only session of the pool, which the transaction has
        raise SessionShared from error
