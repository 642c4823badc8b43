"""A flush ends, whatever happens to the nodes meanwhile."""

import asyncio
from collections.abc import Iterator
from typing import Literal

import asyncpg
import pytest

from pgchannels.database import migrations
from pgchannels.django import PostgresChannelLayer
from pgchannels.embedded import EmbeddedServer
from pgchannels.process.node import Node
from tests.support.gates import Gate
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import steps, until, within

HEARTBEAT_SECONDS = 0.3


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A durable server with the schema."""
    with EmbeddedServer(durable=True) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


async def test_flush_does_not_wait_for_ever_for_a_node_that_opens_meanwhile(database_url: str) -> None:
    flushing, opening = PostgresChannelLayer(database_url), PostgresChannelLayer(database_url)
    await flushing.new_channel()
    with Gate(node_of(flushing).sender, "_command") as commands:
        flush = asyncio.create_task(flushing.flush())
        await within(commands.reached())
        await opening.new_channel()
        commands.open()
        await within(flush)
    await opening.close()
    await flushing.close()


async def test_flush_goes_on_when_a_crash_takes_its_commands(server: EmbeddedServer) -> None:
    async with Proxy(server.url()) as proxy:
        flushing = PostgresChannelLayer(server.url(), heartbeat=HEARTBEAT_SECONDS)
        behind = PostgresChannelLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS)
        channel = await behind.new_channel()
        await flushing.new_channel()
        await behind.group_add("room", channel)
        proxy.freeze_at(b"node:asgi:")  # the command
        flush = asyncio.create_task(flushing.flush())
        await within(proxy.holding(b"node:asgi:"))
        proxy.refuse()
        proxy.cut()
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await until(lambda: _is_registered(server, node_of(flushing)))
        proxy.restore()
        await within(flush)
        assert not node_of(behind).receiver.channels._topics
        await behind.close()
        await flushing.close()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_flush_waits_for_a_node_that_is_not_back_after_a_restart(
    server: EmbeddedServer, mode: Literal["fast", "immediate"]
) -> None:
    async with Proxy(server.url()) as proxy:
        flushing = PostgresChannelLayer(server.url(), heartbeat=HEARTBEAT_SECONDS)
        behind = PostgresChannelLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS)
        channel = await behind.new_channel()
        await flushing.new_channel()
        await behind.group_add("room", channel)
        proxy.refuse()
        proxy.cut()
        await asyncio.to_thread(server.restart, mode)
        await until(lambda: _is_registered(server, node_of(flushing)))
        with Gate(node_of(flushing).sender, "_ask", behind=True, first=2) as asked:
            flush = asyncio.create_task(flushing.flush())
            await within(asked.reached())  # it knows which nodes there are
            asked.open()
        await steps(20)
        assert not flush.done()
        proxy.restore()
        await within(flush)
        assert not node_of(behind).receiver.channels._topics
        await behind.close()
        await flushing.close()


async def _is_registered(server: EmbeddedServer, node: Node) -> bool:
    connection = await asyncpg.connect(server.url())
    try:
        return bool(
            await connection.fetchval("SELECT count(*) FROM pgchannels.subscription WHERE node = $1", node.identity.id)
        )
    finally:
        await connection.close()


async def test_node_that_the_database_has_forgotten_tells_again_that_it_was_flushed(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = PostgresChannelLayer(database_url, heartbeat=3600)
    await layer.new_channel()
    await layer.flush()
    flushed = "SELECT max(flushed_until) FROM pgchannels.node"
    before = await connection.fetchval(flushed)
    assert before > 0
    await connection.execute("SELECT pgchannels.remove_nodes(array_agg(id)) FROM pgchannels.node")
    node_of(layer).beat_now()

    async def is_told() -> bool:
        return bool(await connection.fetchval(flushed) == before)

    await until(is_told)
    await layer.close()
