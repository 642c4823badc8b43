"""Connections that are lost, and what must not be lost with them."""

import asyncio

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, Gap, GapReason, MessageLayer, MessagesLost, Position
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import until, within

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def terminate_all(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """End every other connection to the database of the test."""
    await connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {OTHERS}")


async def publish_numbers(layer: MessageLayer, count: int) -> list[Position]:
    """Publish 0, 1, … one after another; every third is too large for a notification."""
    return [await layer.publish("room", [number, "x" * (9_000 if number % 3 == 0 else 0)]) for number in range(count)]


async def test_nothing_is_lost_or_doubled_while_all_connections_are_cut_again_and_again(
    layer: MessageLayer, other_layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with other_layer.subscribe("room") as subscription:
        publishing = asyncio.create_task(publish_numbers(layer, 300))
        received = []
        for number in range(300):
            if number % 50 == 25:
                await terminate_all(connection)
            received.append(await within(anext(subscription)))
        positions = await within(publishing)
    assert [message.payload[0] for message in received] == list(range(300))
    assert [message.position for message in received] == positions == sorted(positions)
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.message") == 300


async def test_channels_and_queues_survive_cut_connections(
    layer: MessageLayer, other_layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    channel = await other_layer.new_channel()
    for number in range(5):
        receiving = asyncio.create_task(other_layer.receive(channel))
        claiming = asyncio.create_task(other_layer.receive("jobs"))
        await asyncio.sleep(0)
        await terminate_all(connection)
        await layer.send(channel, number)
        await layer.send("jobs", number)
        assert await within(receiving) == number
        assert await within(claiming) == number


async def test_listener_that_was_made_deaf_is_noticed(
    layer: MessageLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    database_url: str,
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1) as deaf, deaf.subscribe("room") as subscription:
        node = node_of(deaf)
        listening = node._listener._connection
        assert listening is not None
        await listening.execute("UNLISTEN *")
        await layer.publish("room", "unheard")
        assert (await within(anext(subscription))).payload == "unheard"
        await until(lambda: _is_another(node._listener, listening))


async def _is_another(listener: object, connection: object) -> bool:
    return getattr(listener, "_connection", None) not in {None, connection}


async def test_node_whose_lease_was_taken_registers_again(
    layer: MessageLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    database_url: str,
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1) as forgotten, forgotten.subscribe("room") as subscription:
        await connection.execute("DELETE FROM pgchannels.node; DELETE FROM pgchannels.subscription")
        await layer.publish("room", "while forgotten")
        assert (await within(anext(subscription))).payload == "while forgotten"


async def test_restarted_server_keeps_the_epoch_and_a_crash_begins_a_new_one() -> None:
    with EmbeddedServer(durable=True) as server:
        await migrations.upgrade(server.url())
        async with MessageLayer(server.url()) as layer, layer.subscribe("room") as subscription:
            positions = [await layer.publish("room", 0)]
            await asyncio.to_thread(server.restart, "fast")
            positions.append(await within(layer.publish("room", 1)))
            received = [await within(anext(subscription)) for _ in range(2)]
            await asyncio.to_thread(server.kill)
            publishing = asyncio.create_task(layer.publish("room", 2))
            await asyncio.to_thread(server.start)
            positions.append(await within(publishing))
            with pytest.raises(MessagesLost) as lost:
                await within(anext(subscription))
            received.append(await within(anext(subscription)))
    assert lost.value.gap == Gap(GapReason.CRASH, None)
    assert [message.payload for message in received] == [0, 1, 2]
    assert [message.position for message in received] == positions == sorted(positions)
    assert [position.epoch for position in positions] == [1, 1, 2]


async def test_send_while_the_database_is_away_says_so_in_time() -> None:
    with EmbeddedServer() as server:
        await migrations.upgrade(server.url())
        async with MessageLayer(server.url(), send_timeout=1) as layer:
            await layer.publish("room", 1)
            await asyncio.to_thread(server.kill)
            with pytest.raises(DatabaseUnavailable, match="send_timeout=1"):
                await within(layer.publish("room", 2))


async def test_message_heard_behind_a_missed_one_waits_for_it_when_registering_fails(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    async with (
        Proxy(database_url) as proxy,
        MessageLayer(proxy.url, heartbeat=60) as interrupted,
        interrupted.subscribe("room") as subscription,
    ):
        proxy.refuse()
        proxy.cut()
        await layer.publish("room", "missed")
        async with connection.transaction():
            # It listens again, and waits for its place in this table.
            await connection.execute("LOCK TABLE pgchannels.node")
            proxy.restore()
            await until(lambda: _somebody_waits_for_a_lock(database_url))
            await layer.publish("room", "heard")
            await connection.execute(f"SELECT pg_terminate_backend(pid, 5000) {OTHERS} AND wait_event_type = 'Lock'")
        assert [(await within(anext(subscription))).payload for _ in range(2)] == ["missed", "heard"]


async def _somebody_waits_for_a_lock(database_url: str) -> bool:
    connection = await asyncpg.connect(database_url)
    try:
        return bool(await connection.fetchval(f"SELECT count(*) {OTHERS} AND wait_event_type = 'Lock'"))
    finally:
        await connection.close()
