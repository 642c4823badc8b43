"""Whose session ends with a node that is removed."""

from collections.abc import AsyncIterator
from typing import TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def listening(database_url: str) -> AsyncIterator[Connection]:
    """A session of the application."""
    connection = await asyncpg.connect(database_url, statement_cache_size=0)
    yield connection
    await connection.close()


@pytest.fixture
async def removing(database_url: str) -> AsyncIterator[Connection]:
    """Another session of the application."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def remove(node: UUID, *, by: Connection, leased_until: str = "now()") -> None:
    await by.execute(f"INSERT INTO pgchannels.node (id, name, leased_until) VALUES ($1, 'gone', {leased_until})", node)
    await by.execute("SELECT pgchannels.remove_nodes(ARRAY[$1::uuid])", node)
    assert not await by.fetchval("SELECT count(*) FROM pgchannels.node WHERE id = $1", node)


async def listen(session: Connection) -> UUID:
    node = uuid4()
    await session.execute("SELECT pgchannels.listen($1)", node)
    return node


async def test_session_of_a_node_whose_lease_has_ended_ends(listening: Connection, removing: Connection) -> None:
    async def has_ended() -> bool:
        return listening.is_closed()

    await remove(await listen(listening), by=removing)
    await until(has_ended)


async def test_session_goes_on_that_is_not_the_nodes_any_more(listening: Connection, removing: Connection) -> None:
    node = await listen(listening)
    await listening.execute("DISCARD ALL")  # as a pooler does before it gives the session to somebody else
    await remove(node, by=removing)
    await remove(await listen(removing), by=removing)
    await remove(await listen(listening), by=removing, leased_until="now() + interval '1 minute'")  # the node closes
    assert await listening.fetchval("SELECT 1") == 1


async def test_nobody_who_takes_the_lock_of_a_node_keeps_it_waiting(
    listening: Connection, removing: Connection
) -> None:
    node = uuid4()
    await removing.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", str(node))
    await within(listening.execute("SELECT pgchannels.listen($1)", node))


async def test_node_is_removed_also_where_its_session_may_not_be_ended(
    connection: Connection, removing: Connection
) -> None:
    await remove(await listen(connection), by=removing)
    assert await connection.fetchval("SELECT 1") == 1
