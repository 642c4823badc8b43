"""What people see in the views of the schema."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer
from pgchannels.database.tables import VIEWS
from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import LIMIT_SECONDS, until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def rows(connection: Connection, view: str, *columns: str) -> list[tuple[Any, ...]]:
    """The rows of a view, by name."""
    found = await connection.fetch(f"SELECT {', '.join(columns)} FROM pgchannels.{view} ORDER BY name")
    return [tuple(row) for row in found]


async def test_nodes_are_seen_with_what_they_host(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    async with layer.subscribe("room", "news"), other_layer.subscribe("room"):
        nodes = await rows(connection, "node_status", "prefix", "is_alive", "groups", "full_channels")
        assert sorted(nodes) == [("asgi", True, 1, 0), ("asgi", True, 2, 0)]
        topics = await rows(connection, "group_status", "prefix", "name", "nodes", "last_message_at IS NOT NULL")
        assert topics == [("asgi", "news", 1, False), ("asgi", "room", 2, False)]
        await layer.publish("room", 1)
        assert (await rows(connection, "group_status", "last_message_at IS NOT NULL")) == [(False,), (True,)]


@pytest.mark.parametrize("view", VIEWS)
async def test_no_view_shows_the_id_of_a_node(layer: MessageLayer, connection: Connection, view: str) -> None:
    async with layer.subscribe("room"):
        ids = [str(node) for (node,) in await connection.fetch("SELECT id FROM pgchannels.node")]
        await layer.send("jobs", 1)
        seen = str([tuple(row) for row in await connection.fetch(f"SELECT * FROM pgchannels.{view}")])
    assert ids
    assert seen != "[]"
    assert not any(node in seen for node in ids)


async def test_queue_shows_what_waits_unclaimed_and_unexpired(layer: MessageLayer, connection: Connection) -> None:
    for number in range(5):
        await layer.send("jobs", number)
    await within(layer.receive("jobs"))
    assert await rows(connection, "queue_status", "prefix", "name", "waiting") == [("asgi", "jobs", 4)]
    await connection.execute(
        "UPDATE pgchannels.message SET expires_at = now() WHERE number IN (2, 3) AND address = 'queue:asgi:jobs'"
    )
    assert await rows(connection, "queue_status", "waiting") == [(2,)]
    for _ in range(2):
        await within(layer.receive("jobs", on_gap=lambda _: None))
    assert await rows(connection, "queue_status", "waiting", "waiting_since") == [(0, None)]


async def test_queue_shows_what_is_in_progress_until_it_has_ended(layer: MessageLayer, connection: Connection) -> None:
    for number in range(3):
        await layer.send("jobs", number)
    with suppress(ZeroDivisionError):
        async with asyncio.timeout(LIMIT_SECONDS), layer.claim("jobs"), layer.claim("jobs"):
            assert await rows(connection, "queue_status", "waiting", "in_progress") == [(1, 2)]
            raise ZeroDivisionError
    await until(partial(shows, connection, (3, 0)))
    async with asyncio.timeout(LIMIT_SECONDS), layer.claim("jobs"):
        pass
    await until(partial(shows, connection, (2, 0)))


async def shows(connection: Connection, figures: tuple[int, int]) -> bool:
    """Whether the only queue has so many messages that wait, and so many in progress."""
    return await rows(connection, "queue_status", "waiting", "in_progress") == [figures]


async def test_queue_in_a_group_is_seen_though_nothing_waits_in_it(database_url: str, connection: Connection) -> None:
    layer = PostgresChannelLayer(database_url)
    await layer.group_add("room", "archive")
    await layer.group_add("room", "thumbnails")
    await layer.close()
    assert await rows(connection, "group_status", "name", "nodes", "queues") == [("room", 0, 2)]
    queues = await rows(connection, "queue_status", "name", "waiting", "groups", "nodes")
    assert queues == [("archive", 0, 1, 0), ("thumbnails", 0, 1, 0)]


async def test_role_of_an_application_reads_the_views(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    for view in VIEWS:
        await connection.fetch(f"SELECT * FROM pgchannels.{view}")
    await connection.close()
