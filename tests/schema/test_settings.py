"""Settings of a role or a database: they break nothing and change nothing, or an error names them."""

from datetime import timedelta
from typing import Final

import asyncpg
import pytest
from sqlalchemy import func, make_url, select
from sqlalchemy.ext.asyncio import create_async_engine

from pgchannels import DatabaseUnavailable, MessageLayer
from pgchannels.database import migrations
from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.database.statements.retention import rotation_is_overdue
from tests.conftest import url_of_role
from tests.support.log import let_pass, rotate
from tests.support.settings import SETTINGS
from tests.support.waiting import within

LARGE: Final = "x" * 100_000


@pytest.mark.parametrize("name", SETTINGS)
async def test_setting_of_a_role_changes_nothing(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, application_role: str, name: str
) -> None:
    if await connection.fetchval("SELECT current_setting($1, true)", name) is None and "." not in name:
        return  # this server has none of that name
    await give(connection, application_role, name, SETTINGS[name])
    async with MessageLayer(database_url, heartbeat=0.1) as layer, layer.subscribe("room", "other") as subscription:
        channel = await layer.new_channel()
        await layer.publish("room", LARGE)
        await layer.publish_many([("other", number) for number in range(50)])
        received = [(await within(anext(subscription))).payload for _ in range(51)]
        assert received == [LARGE, *range(50)]
        await layer.send("jobs", [LARGE, 1])
        await layer.send(channel, "to a channel")
        assert await within(layer.receive("jobs")) == [LARGE, 1]
        assert await within(layer.receive(channel)) == "to a channel"
        await layer.publish_many([("many", [number, "x" * 3_000]) for number in range(600)])
        assert [message.payload[0] for message in await layer.history("many", limit=600)] == list(range(600))
        await let_pass(connection, 30)
        assert await rotate(connection)


@pytest.mark.parametrize("name", SETTINGS)
async def test_functions_do_the_same_under_a_setting_of_their_caller(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, name: str
) -> None:
    if await connection.fetchval("SELECT current_setting($1, true)", name) is None and "." not in name:
        return
    await connection.execute(f"SET {name} = '{SETTINGS[name]}'")
    await connection.execute("INSERT INTO pgchannels.member VALUES ('topic:asgi:room', 'queue:asgi:jobs', 9)")
    deliver = """
        SELECT refused, dropped FROM pgchannels.deliver(
            1, 'infinity', '{topic:asgi:room,queue:asgi:jobs}', NULL, '{a,b}', ARRAY[NULL, 2], NULL, 60
        )
    """
    if name == "default_transaction_isolation":
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="transaction_isolation is serializable"):
            await connection.fetchval(deliver)
        return
    outcomes = [await connection.fetchrow(deliver) for _ in range(2)]
    assert [(row["refused"] or [], row["dropped"] or 0) for row in outcomes if row] == [([], 0)] * 2
    claimed = await connection.fetch("SELECT payload FROM pgchannels.claim(2, 'infinity', 'queue:asgi:jobs', 5)")
    assert [payload for (payload,) in claimed] == [b"a", b"b"]


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.endswith("timeout") and name != "lock_timeout"])
async def test_limit_of_a_role_is_none_for_connections_of_ours(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, application_role: str, name: str
) -> None:
    if await connection.fetchval("SELECT current_setting($1, true)", name) is None:
        return
    await give(connection, application_role, name, SETTINGS[name])
    for target in (database_url, create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))):
        connections = Connections(Database(target))
        assert [tuple(row) for row in await connections.ask(lambda _: select(func.current_setting(name)))] == [("0",)]
        await connections.close()


async def test_view_is_read_for_a_role_that_reads_none(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, application_role: str
) -> None:
    if await connection.fetchval("SELECT current_setting('restrict_nonsystem_relation_kind', true)") is None:
        return
    await give(connection, application_role, "restrict_nonsystem_relation_kind", "view")
    connections = Connections(Database(database_url))
    assert list(await connections.ask(rotation_is_overdue)) == []  # the log has not begun
    await connections.close()


async def test_setting_that_is_not_set_aside_is_named(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, application_role: str
) -> None:
    await give(connection, application_role, "default_transaction_read_only", "on")
    layer = MessageLayer(database_url)
    with pytest.raises(DatabaseUnavailable, match="default_transaction_read_only is on"):
        await layer.open()
    await layer.close()


async def test_schema_is_made_under_any_setting(
    connection: "asyncpg.Connection[asyncpg.Record]", owner_url: str
) -> None:
    role = await connection.fetchval("SELECT 'owner_' || md5(current_database())")
    await connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{role}'")
    for name, value in SETTINGS.items():
        if "." in name or await connection.fetchval("SELECT current_setting($1, true)", name) is not None:
            await give(connection, role, name, value)
    await migrations.upgrade(url_of_role(owner_url, role), schema="another")
    await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_retention_of_days_has_days_of_24_hours(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    async with MessageLayer(database_url, expiry=86_400):
        await connection.execute("SET TimeZone = 'Europe/Berlin'")  # where this day has 23 hours
        later = await connection.fetchval("SELECT timestamptz '2026-03-28 12:00+01' + retention FROM pgchannels.log")
    assert later - await connection.fetchval("SELECT timestamptz '2026-03-28 12:00+01'") == timedelta(days=1)


async def give(connection: "asyncpg.Connection[asyncpg.Record]", role: str, name: str, value: str) -> None:
    """Give a role a setting in the database of the test."""
    database = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER ROLE {role} IN DATABASE {database} SET {name} = '{value}'")
