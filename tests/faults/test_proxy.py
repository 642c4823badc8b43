"""The proxy makes the faults that it names, and nothing stays of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from tests.support.proxy import Proxy
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def proxy(empty_database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(empty_database_url) as proxy:
        yield proxy


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[Connection]:
    """A connection through the proxy."""
    connection = await asyncpg.connect(proxy.url)
    yield connection
    connection.terminate()


@pytest.fixture
async def direct(empty_database_url: str) -> AsyncIterator[Connection]:
    """A connection past the proxy, to a database with a table of numbers."""
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("CREATE TABLE number (value int)")
    yield connection
    await connection.close()


async def numbers(connection: Connection) -> list[int]:
    return [row["value"] for row in await connection.fetch("SELECT value FROM number")]


async def test_statements_of_any_size_pass(behind: Connection) -> None:
    text = "x" * 5_000_000
    assert await within(behind.fetchval("SELECT $1::text || $1::text", text)) == text + text


async def test_cut_resets_connections_and_takes_new_ones(proxy: Proxy, behind: Connection) -> None:
    running = asyncio.create_task(behind.execute("SELECT pg_sleep(60)"))
    await asyncio.sleep(0)
    proxy.cut()
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionResetError)):
        await within(running)
    another = await within(asyncpg.connect(proxy.url))
    await another.close()


async def test_refused_connections_are_taken_on_the_same_port_after_restore(proxy: Proxy, behind: Connection) -> None:
    url = proxy.url
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await within(asyncpg.connect(url))
    assert await within(behind.fetchval("SELECT 1")) == 1
    proxy.restore()
    another = await within(asyncpg.connect(url))
    await another.close()


async def test_frozen_connections_are_not_answered_until_restore(proxy: Proxy, behind: Connection) -> None:
    proxy.freeze()
    statement = asyncio.create_task(behind.fetchval("SELECT 'late'"))
    connecting = asyncio.create_task(asyncpg.connect(proxy.url))
    await within(proxy.holding(b"SELECT 'late'"))
    assert not statement.done()
    assert not connecting.done()
    proxy.restore()
    assert await within(statement) == "late"
    await (await within(connecting)).close()


async def test_frozen_statement_arrives_late_although_its_client_is_gone(
    proxy: Proxy, behind: Connection, direct: Connection
) -> None:
    proxy.freeze()
    statement = asyncio.create_task(behind.execute("INSERT INTO number VALUES (1)"))
    await within(proxy.holding(b"VALUES (1)"))
    proxy.cut()
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionResetError)):
        await within(statement)
    assert await numbers(direct) == []
    proxy.restore()
    await within(proxy.settled())
    assert await numbers(direct) == [1]


async def test_dropped_statement_never_arrives(proxy: Proxy, behind: Connection, direct: Connection) -> None:
    await behind.execute("SET application_name TO 'behind'")
    proxy.freeze()
    statement = asyncio.create_task(behind.execute("INSERT INTO number VALUES (1)"))
    await within(proxy.holding(b"VALUES (1)"))
    proxy.restore(held="drop")
    with pytest.raises((asyncpg.PostgresConnectionError, ConnectionResetError)):
        await within(statement)
    await until(lambda: _has_ended(direct, "behind"))
    assert await numbers(direct) == []


async def test_statement_whose_answer_is_frozen_is_committed(
    proxy: Proxy, behind: Connection, direct: Connection
) -> None:
    proxy.freeze("to_client")
    statement = asyncio.create_task(behind.execute("INSERT INTO number VALUES (1)"))
    await until(lambda: _has(direct, [1]))
    assert not statement.done()
    proxy.restore()
    assert await within(statement) == "INSERT 0 1"


async def test_new_connections_pass_beside_frozen_ones(proxy: Proxy, behind: Connection, direct: Connection) -> None:
    proxy.freeze(new_connections=False)
    late = asyncio.create_task(behind.execute("INSERT INTO number VALUES (1)"))
    await within(proxy.holding(b"VALUES (1)"))
    another = await within(asyncpg.connect(proxy.url))
    await within(another.execute("INSERT INTO number VALUES (2)"))
    await another.close()
    proxy.restore()
    await within(late)
    assert await numbers(direct) == [2, 1]


async def test_one_direction_of_one_connection_freezes_at_a_content(proxy: Proxy, behind: Connection) -> None:
    another = await within(asyncpg.connect(proxy.url))
    proxy.freeze_at(b"in answer")
    asking = asyncio.create_task(behind.fetchval("SELECT 'in ' || 'answer'"))
    await within(proxy.holding(b"in answer"))
    assert await within(another.fetchval("SELECT 'in ' || 'answer'")) == "in answer"
    assert not asking.done()
    proxy.restore()
    assert await within(asking) == "in answer"
    await another.close()


async def test_slow_connections_take_their_time(proxy: Proxy, behind: Connection) -> None:
    loop = asyncio.get_running_loop()
    proxy.slow(bytes_per_second=100_000)
    begin = loop.time()
    assert await within(behind.fetchval("SELECT repeat('x', 20000)")) == "x" * 20_000
    assert loop.time() - begin >= 0.2
    proxy.restore()


async def test_nothing_is_left_of_a_proxy_with_frozen_connections(empty_database_url: str) -> None:
    before = asyncio.all_tasks()
    async with Proxy(empty_database_url) as proxy:
        connection = await asyncpg.connect(proxy.url)
        proxy.freeze()
        statement = asyncio.create_task(connection.execute("SELECT 1"))
        connecting = asyncio.create_task(asyncpg.connect(proxy.url))
        await within(proxy.holding(b"SELECT 1"))
    outcomes = await within(asyncio.gather(statement, connecting, return_exceptions=True))
    assert all(isinstance(outcome, Exception) for outcome in outcomes)
    assert asyncio.all_tasks() == before


async def _has(connection: Connection, expected: list[int]) -> bool:
    return await numbers(connection) == expected


async def _has_ended(connection: Connection, name: str) -> bool:
    return not await connection.fetch("SELECT FROM pg_stat_activity WHERE application_name = $1", name)
