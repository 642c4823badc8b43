"""What other clients leave in a session of a pooler reaches neither a layer nor a command, and stays as it is."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, MessageLayer
from pgchannels.cli import main
from pgchannels.database import migrations
from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from pgchannels.database.grants import grant
from pgchannels.embedded import EmbeddedServer
from tests.support.connections import fetchval
from tests.support.poolers import pgbouncer
from tests.support.roads import node_of
from tests.support.settings import SETTINGS
from tests.support.waiting import within

POLL: Final[dict[str, Any]] = {"poll": 0.05}

# Whose choice they are, says the server: a role, a database, or itself.
CHOSEN: Final = {
    "synchronous_commit": "remote_apply",
    "default_transaction_read_only": "on",
    "default_table_access_method": "other",
    "lock_timeout": "1ms",
}
LEFT: Final = {
    "a role": "SET ROLE nobody",
    "a user": "SET SESSION AUTHORIZATION nobody",
    "transactions that are read-only": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    **{name: f"SET {name} = '{value}'" for name, value in (SETTINGS | CHOSEN).items()},
}
IN_FORCE: Final = "SELECT session_user, current_user, current_setting('transaction_read_only'), " + ", ".join(
    f"current_setting('{name}')" for name in (*CHOSEN, "statement_timeout", "search_path")
)
COMMANDS: Final = (["upgrade"], ["status"], ["retention", "2min"], ["durability", "fast"])


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server of its own, with the schema."""
    with EmbeddedServer() as server:
        asyncio.run(migrations.upgrade(server.url()))
        asyncio.run(execute(server.url(), PREPARED))
        yield server


PREPARED: Final = """
    CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
    CREATE ROLE nobody;
    CREATE ROLE shop LOGIN;
    CREATE ROLE seller ROLE shop;
    ALTER ROLE shop SET role = 'seller';
    ALTER ROLE shop SET synchronous_commit = 'local';
    CREATE ROLE reader LOGIN SUPERUSER;
    ALTER ROLE reader SET default_transaction_read_only = on;
"""


@pytest.fixture(scope="module")
def url(server: EmbeddedServer) -> Iterator[str]:
    """The server through PgBouncer in transaction mode, which has a single session."""
    with pgbouncer(server, mode="transaction", most=1) as url:
        yield url


@asynccontextmanager
async def client(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Another client of the pooler, which tidies up at last."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.execute("DISCARD ALL")
        await connection.close()


async def execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statements)
    await connection.close()


async def in_force(layer: MessageLayer) -> tuple[object, ...]:
    """What holds for the statements of a layer."""
    [row] = await node_of(layer)._connections.fetch_text(IN_FORCE)
    return tuple(row)


async def in_force_for_commands(url: str) -> tuple[object, ...]:
    return await run_sync(Database(url), lambda connection: tuple(connection.exec_driver_sql(IN_FORCE).one()))


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT.keys())
async def test_leftover_does_not_reach_a_layer(server: EmbeddedServer, url: str, left: str) -> None:
    if await is_unknown(server, left):
        return
    async with client(url) as other, MessageLayer(url, **POLL) as layer, layer.subscribe("room") as subscription:
        expected = await in_force(layer)
        await other.execute(left)
        found = await other.fetchrow(IN_FORCE)
        async with MessageLayer(url, **POLL) as newer:
            for sender in (layer, newer):
                await within(sender.publish("room", "x" * 10_000))
                assert (await within(anext(subscription))).payload == "x" * 10_000
                assert await in_force(sender) == expected
            assert await other.fetchrow(IN_FORCE) == found


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT.keys())
async def test_leftover_does_not_reach_a_command(server: EmbeddedServer, url: str, left: str) -> None:
    if await is_unknown(server, left):
        return
    expected = await in_force_for_commands(url)
    async with client(url) as other:
        await other.execute(left)
        found = await other.fetchrow(IN_FORCE)
        assert await in_force_for_commands(url) == expected
        for command in COMMANDS:
            assert await asyncio.to_thread(main, [*command, "--url", url]) == 0, command
        assert await other.fetchrow(IN_FORCE) == found


async def is_unknown(server: EmbeddedServer, left: str) -> bool:
    """Whether this server has no setting of that name."""
    _, name, *_ = left.split()
    names = f"SELECT count(*) FROM pg_settings WHERE lower(name) = lower('{name}')"
    return "_" in name and "." not in name and await fetchval(server.url(), names) == 0


async def test_choice_of_a_role_holds_whatever_others_leave(server: EmbeddedServer) -> None:
    await grant(server.url(), "seller")
    with pgbouncer(server, mode="transaction", most=1, user="shop") as url:
        async with client(url) as other, MessageLayer(url, **POLL) as layer, layer.subscribe("room") as subscription:
            await other.execute("SET synchronous_commit = off; SET ROLE NONE")
            await within(layer.publish("room", 1))
            assert (await within(anext(subscription))).payload == 1
            assert (await in_force(layer))[:4] == ("shop", "seller", "off", "local")
            assert (await in_force_for_commands(url))[:4] == ("shop", "seller", "off", "local")


async def test_role_that_only_reads_is_refused_whatever_others_leave(server: EmbeddedServer) -> None:
    with pgbouncer(server, mode="transaction", most=1, user="reader") as url:
        async with client(url) as other:
            await other.execute("SET default_transaction_read_only = off")
            with pytest.raises(DatabaseUnavailable, match="default_transaction_read_only is on; turn it off for the"):
                await within(MessageLayer(url, **POLL).open())


async def test_durable_message_is_on_the_disk_whatever_others_leave() -> None:
    with EmbeddedServer(durable=True) as server, pgbouncer(server, mode="transaction", most=1) as url:
        await migrations.upgrade(server.url())
        assert await asyncio.to_thread(main, ["durability", "durable", "--url", url]) == 0
        await execute(server.url(), "ALTER SYSTEM SET wal_writer_delay = '10s'")  # or it writes soon enough
        await execute(server.url(), "SELECT pg_reload_conf()")
        async with client(url) as other, MessageLayer(url, **POLL) as layer:
            await other.execute("SET synchronous_commit = off")
            for number in range(20):
                written = await fetchval(server.url(), "SELECT pg_current_wal_insert_lsn()::text")
                await within(layer.publish("room", number))
                assert await fetchval(server.url(), f"SELECT pg_current_wal_flush_lsn() > '{written}'")
