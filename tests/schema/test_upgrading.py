"""Upgrades and downgrades while others use the tables: they wait shortly, come back, and name who is in the way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable
from pgchannels.database import migrations
from pgchannels.database.revision import REVISIONS, upgrading_lock
from pgchannels.database.short_locks import Patience
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SHORT: Final = 0.2
WAITING: Final = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND {what}"
USED: Final = ("message_1", "log_status")


@pytest.fixture
async def old_url(empty_database_url: str) -> str:
    """A database with tables of the first revision."""
    await migrations.upgrade(empty_database_url, revision="0001")
    return empty_database_url


@asynccontextmanager
async def reading(url: str, table: str) -> AsyncIterator[Connection]:
    """A session that has read a table in a transaction which is still open."""
    connection = await asyncpg.connect(url, server_settings={"application_name": "reports"})
    try:
        async with connection.transaction():
            await connection.fetch(f"SELECT FROM pgchannels.{table}")
            yield connection
    finally:
        await connection.close()


async def waits(connection: Connection, what: str = "locktype = 'relation'") -> None:
    """Return once another session waits for a lock of this kind."""

    async def is_waiting() -> bool:
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        return bool(await connection.fetchval(WAITING.format(what=f"{what} AND {here}")))

    await until(is_waiting)


async def lets_pass(connection: Connection) -> None:
    """Return once nobody waits for a table."""

    async def nobody_waits() -> bool:
        return not await connection.fetchval(WAITING.format(what="locktype = 'relation'"))

    await until(nobody_waits)


@pytest.mark.parametrize("table", USED)
async def test_upgrade_names_who_has_read_a_table_and_changes_nothing(old_url: str, table: str) -> None:
    async with reading(old_url, table) as reader:
        with pytest.raises(DatabaseUnavailable) as failed:
            await migrations.upgrade(old_url, timeout_seconds=SHORT)
        assert f"process {reader.get_server_pid()} (reports, role postgres, since " in str(failed.value)
        assert "Run the command again" in str(failed.value)
        assert await reader.fetchval("SELECT version_num FROM pgchannels.pgchannels_version") == "0001"
    assert await migrations.upgrade(old_url, timeout_seconds=SHORT) == ("0001", REVISIONS[-1])


async def test_upgrade_lets_others_pass_and_comes_back_until_the_reader_is_done(old_url: str) -> None:
    watching = await asyncpg.connect(old_url)
    async with reading(old_url, "message"):
        upgrading = asyncio.create_task(migrations.upgrade(old_url))
        for _ in range(2):
            await waits(watching)
            await lets_pass(watching)
        assert not upgrading.done()
    assert await within(upgrading) == ("0001", REVISIONS[-1])
    await watching.close()


async def test_stranger_who_holds_the_lock_of_upgrades_is_named(owner_url: str, stranger: Connection) -> None:
    await stranger.execute(upgrading_lock("pgchannels").replace("_xact", ""))
    with pytest.raises(DatabaseUnavailable) as failed:
        await migrations.upgrade(owner_url, timeout_seconds=SHORT)
    role = await stranger.fetchval("SELECT current_user")
    assert f"process {stranger.get_server_pid()} (unnamed, role {role}, " in str(failed.value)
    assert "the lock of upgrades)" in str(failed.value)


def test_prepared_transaction_in_the_way_is_named_for_what_it_is() -> None:
    holder = (None, None, None, None, False)
    assert "a prepared transaction (see pg_prepared_xacts)" in str(Patience(1).exhausted("pgchannels", [holder]))


@pytest.mark.parametrize("limit", ["1ms", "0"])
async def test_limit_of_the_role_neither_shortens_nor_lengthens_a_wait(old_url: str, limit: str) -> None:
    url = f"{old_url}&options=-c%20lock_timeout%3D{limit}"
    holding = await asyncpg.connect(old_url)
    async with holding.transaction():
        await holding.execute(upgrading_lock("pgchannels"))
        upgrading = asyncio.create_task(migrations.upgrade(url))
        await waits(holding, "locktype = 'advisory'")
    assert await within(upgrading) == ("0001", REVISIONS[-1])
    async with reading(old_url, "log_status"):
        with pytest.raises(DatabaseUnavailable, match="reports"):
            await migrations.downgrade(url, revision="0001", timeout_seconds=SHORT)
    await holding.close()


@pytest.mark.parametrize("change", [migrations.upgrade, migrations.downgrade])
async def test_other_failures_are_not_tried_again(
    old_url: str, stranger_url: str, change: Callable[..., Awaitable[Any]]
) -> None:
    with pytest.raises(Exception, match="permission denied"):
        await within(change(stranger_url))


async def test_tables_that_went_back_are_upgraded_again_and_are_as_before(
    owner_url: str, connection: Connection
) -> None:
    functions = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'pgchannels'::regnamespace ORDER BY 1"
    before = await connection.fetch(functions)
    for revision in ("0002", "0001"):
        await migrations.downgrade(owner_url, revision=revision)
        await migrations.upgrade(owner_url)
        assert await connection.fetch(functions) == before
