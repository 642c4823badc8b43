"""Connections that are lost at the worst moment, and what goes on in the server when they are given up."""

import asyncio

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, Gap, MessageLayer
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import steps, until, within

ROOM = "topic:asgi:room"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def is_true(connection: "asyncpg.Connection[asyncpg.Record]", query: str, *arguments: object) -> bool:
    return bool(await connection.fetchval(f"SELECT ({query})", *arguments))


@pytest.mark.parametrize("turns", range(6))
async def test_heartbeat_that_finds_the_connection_lost_misses_nothing(
    layer: MessageLayer, database_url: str, turns: int
) -> None:
    async with (
        MessageLayer(database_url, heartbeat=3600) as listening,
        listening.subscribe("room") as subscription,
    ):
        listener = node_of(listening)._listener
        assert listener._connection is not None
        node_of(listening).beat_now()
        await steps(turns)
        listener._connection.terminate()
        node_of(listening).beat_now()
        await layer.publish("room", "missed")
        await until(lambda: asyncio.sleep(0, listener.reconnected > 0))
        await layer.publish("room", "heard")
        assert [(await within(anext(subscription))).payload for _ in range(2)] == ["missed", "heard"]


async def test_statement_that_is_given_up_is_cancelled_in_the_server(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", owner_url: str
) -> None:
    async with MessageLayer(database_url, heartbeat=0.5) as layer:
        blocker = await asyncpg.connect(owner_url)
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE pgchannels.message")
            reading = asyncio.create_task(layer.history("room"))
            await until(lambda: is_true(connection, f"({WAITING}) = 1"))
            reading.cancel()
            await asyncio.wait([reading])
            await until(lambda: is_true(connection, f"({WAITING}) = 0"))
        await blocker.close()
        assert await layer.history("room") == []


async def test_node_has_three_connections_whatever_hangs(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", owner_url: str
) -> None:
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL ($1)"
    blocker = await asyncpg.connect(owner_url)
    mine = [await each.fetchval("SELECT pg_backend_pid()") for each in (connection, blocker)]
    async with MessageLayer(database_url, heartbeat=0.3, send_timeout=4) as layer:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE pgchannels.subscription; LOCK TABLE pgchannels.message")
            waiting = [asyncio.create_task(layer.history("room")), asyncio.create_task(layer.publish("room", 1))]
            most = 0
            while not all(task.done() for task in waiting):
                most = max(most, await connection.fetchval(others, mine))
                await asyncio.wait(waiting, timeout=0.05)
        for task in waiting:
            with pytest.raises(DatabaseUnavailable):
                task.result()
        assert most <= 3
    await blocker.close()


async def test_removal_that_arrives_late_leaves_what_was_hosted_again(
    layer: MessageLayer, proxy: Proxy, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(proxy.url, heartbeat=0.5) as behind:
        async with behind.subscribe("room"):
            pass
        proxy.freeze_at(ROOM.encode())  # the call that ends the subscription
        await within(proxy.holding(ROOM.encode()))
        async with behind.subscribe("room") as subscription:  # on another connection, once that one was given up
            proxy.restore()
            await within(proxy.settled())
            await layer.publish("room", "after")
            assert (await within(anext(subscription))).payload == "after"


async def test_subscription_that_could_not_be_ended_is_ended_later(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", owner_url: str
) -> None:
    hosted = f"SELECT EXISTS (SELECT FROM pgchannels.subscription WHERE address = '{ROOM}')"
    blocker = await asyncpg.connect(owner_url)
    async with MessageLayer(database_url, heartbeat=0.5) as layer:
        async with layer.subscribe("room"):
            pass
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE pgchannels.subscription IN SHARE MODE")
            await until(lambda: is_true(connection, f"({WAITING}) > 0"))
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            )
        await until(lambda: is_true(connection, f"NOT ({hosted})"))
    await blocker.close()


async def test_any_number_of_topics_is_subscribed_and_left(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    topics = [f"topic-{number}" for number in range(12_000)]
    count = "SELECT count(*) FROM pgchannels.subscription WHERE starts_with(address, 'topic:')"
    async with MessageLayer(database_url, heartbeat=0.5) as layer:
        async with layer.subscribe(*topics, capacity=20_000) as subscription:
            assert await connection.fetchval(count) == len(topics)
            await layer.publish_many([(topic, topic) for topic in topics])
            received = [(await within(anext(subscription))).payload for _ in topics]
            assert received == topics
        await until(lambda: is_true(connection, f"({count}) = 0"))


async def test_large_messages_over_a_slow_link_take_their_time_and_arrive(layer: MessageLayer, proxy: Proxy) -> None:
    gaps: list[Gap] = []
    async with (
        MessageLayer(proxy.url, heartbeat=0.3) as behind,
        behind.subscribe("big", "small", on_gap=gaps.append) as subscription,
    ):
        proxy.slow(2_000_000)
        await layer.publish("big", b"x" * 5_000_000)
        await layer.publish("small", "behind it")
        assert [len((await within(anext(subscription))).payload) for _ in range(2)] == [5_000_000, 9]
        assert (node_of(behind)._listener.reconnected, gaps) == (0, [])
