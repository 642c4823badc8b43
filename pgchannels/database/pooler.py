"""Detects a pooler that gives each transaction another session, such as PgBouncer in transaction mode."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import asyncpg

from pgchannels.database.failures import LOST_STATEMENTS, NO_TRANSACTIONS, SessionShared, TransactionsRefused

_ROUNDS: Final = 3
_OTHER_SECONDS: Final = 3
_SESSION: Final = "SELECT pg_catalog.pg_backend_pid()"


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
        async with asyncio.timeout(_OTHER_SECONDS):
            for _ in range(_ROUNDS):
                await _require_another_session_for_another(connection, await open_other())


async def _require_another_session_for_another(
    connection: "asyncpg.Connection[Any]", other: "asyncpg.Connection[Any]"
) -> None:
    try:
        before = await connection.fetchval(_SESSION)
        await other.execute("BEGIN")
        between = await other.fetchval(_SESSION)
        after = await connection.fetchval(_SESSION)
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
