"""The tables come and go with `manage.py migrate`."""

import asyncio
from typing import TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer, SchemaMissing
from pgchannels.database.migrations import upgrade_sql
from pgchannels.database.revision import upgrading_lock
from tests.support.django_databases import connected, connection_count, django_database, has_tables, tcp_road
from tests.support.django_processes import CommandFailed, Databases, manage, upgrade
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
def databases(empty_database_url: str) -> Databases:
    """The databases of a project: one, empty."""
    return {"default": django_database(empty_database_url)}


async def both_wait(connection: Connection) -> bool:
    """Whether two others wait for a lock in this connection's database."""
    here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    return bool(await connection.fetchval(f"SELECT count(*) = 2 FROM pg_locks WHERE database = {here} AND NOT granted"))


async def works(url: str) -> bool:
    """Publish a message and receive it."""
    async with MessageLayer(url) as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", "hello")
        return bool((await within(anext(subscription))).payload == "hello")


async def test_migrate_creates_the_tables_and_leaves_no_connection_behind(
    empty_database_url: str, databases: Databases
) -> None:
    await manage(databases, "migrate")
    assert await connection_count(empty_database_url) == 0
    assert await works(empty_database_url)
    migrations = await manage(databases, "showmigrations", "pgchannels")
    assert "[X]" in migrations
    assert "[ ]" not in migrations


async def test_migrating_twice_is_fine(empty_database_url: str, databases: Databases) -> None:
    await manage(databases, "migrate")
    assert "No migrations to apply" in await manage(databases, "migrate")
    assert await works(empty_database_url)


async def test_migrate_after_upgrade_is_fine(owner_url: str) -> None:
    await manage({"default": django_database(owner_url)}, "migrate")
    assert await works(owner_url)


async def test_migrate_leaves_a_database_alone_that_a_router_excludes(owner_url: str, empty_database_url: str) -> None:
    databases = {"default": django_database(empty_database_url), "messages": django_database(owner_url)}
    await manage(databases, "migrate", alias="messages", router="routers.OnlyMessages")
    assert not await has_tables(empty_database_url)
    await manage(databases, "migrate", "--database", "messages", alias="messages", router="routers.OnlyMessages")
    assert await works(owner_url)


async def test_upgrade_after_migrate_is_fine(empty_database_url: str, databases: Databases) -> None:
    await manage(databases, "migrate")
    await upgrade(empty_database_url)
    assert await works(empty_database_url)


async def test_migrate_and_upgrade_wait_for_an_upgrade_that_is_half_way(
    empty_database_url: str, databases: Databases
) -> None:
    async with asyncio.TaskGroup() as others, connected(empty_database_url) as connection, connection.transaction():
        await connection.execute(upgrading_lock("pgchannels"))
        await connection.execute(upgrade_sql("pgchannels", "base:head"))
        others.create_task(manage(databases, "migrate"))
        others.create_task(upgrade(empty_database_url))
        await until(lambda: both_wait(connection))
    assert await works(empty_database_url)


async def waits_for_table(connection: Connection) -> bool:
    """Whether another session waits for a table in this connection's database."""
    here = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    waiting = f"SELECT count(*) > 0 FROM pg_locks WHERE database = {here} AND relation IS NOT NULL AND NOT granted"
    return bool(await connection.fetchval(waiting))


async def test_migrate_lets_others_pass_and_comes_back_until_a_reader_is_done(
    empty_database_url: str, databases: Databases
) -> None:
    await manage(databases, "migrate", "pgchannels", "0001")
    async with asyncio.TaskGroup() as others, connected(empty_database_url) as connection, connection.transaction():
        await connection.fetch("SELECT FROM pgchannels.message")
        migrating = others.create_task(manage(databases, "migrate"))
        for _ in range(2):
            await until(lambda: waits_for_table(connection))
            await until(lambda: lets_pass(connection))
        assert not migrating.done()
    assert await works(empty_database_url)


async def lets_pass(connection: Connection) -> bool:
    """Whether nobody waits for a table."""
    return not await waits_for_table(connection)


async def test_migrate_that_was_never_let_in_says_in_one_line_who_was_in_the_way(
    empty_database_url: str, databases: Databases
) -> None:
    await manage(databases, "migrate", "pgchannels", "0001")
    impatient = (
        "from pgchannels.django import changing; changing.TIMEOUT_SECONDS = 0.2; "
        "from django.core.management import call_command; call_command('migrate')"
    )
    async with connected(empty_database_url) as connection, connection.transaction():
        await connection.fetch("SELECT FROM pgchannels.message")
        with pytest.raises(CommandFailed, match=rf"CommandError: .*process {connection.get_server_pid()} \("):
            await manage(databases, "shell", "-c", impatient)


async def test_migrate_zero_removes_the_tables_and_migrate_creates_them_again(
    empty_database_url: str, databases: Databases
) -> None:
    await manage(databases, "migrate")
    assert await has_tables(empty_database_url)
    await manage(databases, "migrate", "pgchannels", "zero")
    assert not await has_tables(empty_database_url)
    with pytest.raises(SchemaMissing):
        await works(empty_database_url)
    await manage(databases, "migrate")
    assert await works(empty_database_url)


async def test_migrate_zero_removes_tables_that_upgrade_made(owner_url: str) -> None:
    databases = {"default": django_database(owner_url)}
    await manage(databases, "migrate")
    await manage(databases, "migrate", "pgchannels", "zero")
    assert not await has_tables(owner_url)


async def test_makemigrations_finds_nothing_to_do(databases: Databases) -> None:
    assert "No changes detected" in await manage(databases, "makemigrations", "--check")


async def test_django_checks_find_the_tables_missing_before_migrate_and_nothing_after_it(databases: Databases) -> None:
    with pytest.raises(CommandFailed, match=r"pgchannels\.W003.*\s+HINT: `manage\.py migrate`"):
        await manage(databases, "check", "--database", "default")
    await manage(databases, "migrate")
    assert "no issues" in await manage(databases, "check", "--database", "default")


async def test_sql_of_the_migration_can_be_printed_and_changes_nothing(
    empty_database_url: str, databases: Databases
) -> None:
    await manage(databases, "sqlmigrate", "pgchannels", "0001")
    assert not await has_tables(empty_database_url)


async def test_faked_migration_creates_nothing(empty_database_url: str, databases: Databases) -> None:
    await manage(databases, "migrate", "--fake")
    assert not await has_tables(empty_database_url)


async def test_tables_are_created_in_the_database_that_is_migrated(owner_url: str, empty_database_url: str) -> None:
    databases = {"default": django_database(owner_url), "messages": django_database(empty_database_url)}
    await manage(databases, "migrate", "--database", "messages")
    assert await works(empty_database_url)
    with pytest.raises(CommandFailed, match=r"messages in the log: 1.*`manage\.py pgchannels downgrade base --yes`"):
        await manage(databases, "migrate", "pgchannels", "zero", "--database", "messages")
    assert await has_tables(empty_database_url)
    await manage(databases, "pgchannels", "downgrade", "base", "--yes", "--database", "messages")
    await manage(databases, "migrate", "pgchannels", "zero", "--database", "messages")
    assert not await has_tables(empty_database_url)
    assert await has_tables(owner_url)


async def test_tests_of_a_project_use_the_layer_in_their_own_database(empty_database_url: str) -> None:
    async with tcp_road(empty_database_url) as database:
        await manage({"default": database}, "test", "checks", quiet=False)
    assert not await has_tables(empty_database_url)


async def test_process_of_the_project_sends_to_another_process(owner_url: str) -> None:
    sending = (
        "from asgiref.sync import async_to_sync; from channels.layers import get_channel_layer; "
        "async_to_sync(get_channel_layer().group_send)('room', {'type': 'chat.message', 'text': 'hello'})"
    )
    async with (
        tcp_road(owner_url) as database,
        MessageLayer(owner_url) as layer,
        layer.subscribe("room") as subscription,
    ):
        await manage({"default": {}, "messages": database}, "shell", "-c", sending, alias="messages")
        assert (await within(anext(subscription))).payload == {"type": "chat.message", "text": "hello"}
