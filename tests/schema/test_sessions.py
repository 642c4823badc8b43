"""Whose session ends with a node that is removed."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TypeAlias
from uuid import uuid4

import asyncpg
import pytest

from tests.support.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

BEGAN = "SELECT backend_start FROM pg_stat_activity WHERE pid = $1"


@pytest.fixture
async def listening(database_url: str) -> AsyncIterator[Connection]:
    """A session of the application."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def removing(database_url: str) -> AsyncIterator[Connection]:
    """Another session of the application."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def remove_node_of(session: Connection, began_at: object, *, by: Connection) -> None:
    node = uuid4()
    values = (node, session.get_server_pid(), began_at)
    columns = "id, name, leased_until, pid, session_began_at"
    await by.execute(f"INSERT INTO pgchannels.node ({columns}) VALUES ($1, 'gone', now(), $2, $3)", *values)
    await by.execute("SELECT pgchannels.remove_nodes(ARRAY[$1::uuid])", node)
    assert not await by.fetchval("SELECT count(*) FROM pgchannels.node WHERE id = $1", node)


async def test_session_of_a_removed_node_ends(listening: Connection, removing: Connection) -> None:
    async def has_ended() -> bool:
        return listening.is_closed()

    await remove_node_of(listening, await removing.fetchval(BEGAN, listening.get_server_pid()), by=removing)
    await until(has_ended)


async def test_session_that_has_the_process_id_of_another_one_goes_on(
    listening: Connection, removing: Connection
) -> None:
    began_at = await removing.fetchval(BEGAN, listening.get_server_pid())
    for other in (began_at - timedelta(microseconds=1), None):
        await remove_node_of(listening, other, by=removing)
    await remove_node_of(removing, await removing.fetchval(BEGAN, removing.get_server_pid()), by=removing)
    assert await listening.fetchval("SELECT 1") == 1


async def test_node_is_removed_also_where_its_session_may_not_be_ended(
    connection: Connection, removing: Connection
) -> None:
    began_at = await connection.fetchval(BEGAN, connection.get_server_pid())
    await connection.execute(f"GRANT pg_read_all_stats TO {await removing.fetchval('SELECT current_user')}")
    try:
        await remove_node_of(connection, began_at, by=removing)
    finally:
        await connection.execute(f"REVOKE pg_read_all_stats FROM {await removing.fetchval('SELECT current_user')}")
    assert await connection.fetchval("SELECT 1") == 1
