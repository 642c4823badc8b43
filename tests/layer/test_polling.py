"""Polling in place of LISTEN: what arrives, when, and what it costs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Final

import pytest

from pgchannels import ConfigurationError, MessageLayer
from pgchannels.codec import Codec
from pgchannels.receiving.poller import Poller
from tests.support.connections import has_connections
from tests.support.roads import ROADS, Connection, deliver, node_of
from tests.support.waiting import until, within

POLL_SECONDS: Final = 0.05
HEARTBEAT_SECONDS: Final = 0.5
ADDRESS: Final = "topic:asgi:room"
OURS: Final = "FROM pg_stat_activity WHERE application_name LIKE 'pgchannels%' AND datname = current_database()"


@pytest.fixture
async def polling(database_url: str) -> AsyncIterator[MessageLayer]:
    """A layer that polls."""
    async with MessageLayer(database_url, poll=POLL_SECONDS) as layer:
        yield layer


def poller_of(layer: MessageLayer) -> Poller:
    poller = node_of(layer)._poller
    assert poller is not None
    return poller


async def has_looked(layer: MessageLayer, times: int) -> None:
    """Return when the layer has looked at the log so many times more."""
    target = poller_of(layer).looks + times

    async def is_reached() -> bool:
        return poller_of(layer).looks >= target

    await until(is_reached)


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS.keys())
async def test_messages_of_another_layer_arrive_once_and_in_order(
    polling: MessageLayer, database_url: str, road: Any
) -> None:
    async with MessageLayer(database_url) as other, road(polling) as way:
        for number in range(20):
            await way.send(other, number)
            if number % 7 == 0:
                assert await within(way.receive()) == number
            else:
                await has_looked(polling, number % 3)
                assert await within(way.receive()) == number


async def test_layer_that_polls_does_not_listen(polling: MessageLayer, connection: Connection) -> None:
    async with polling.subscribe("room") as subscription:
        await polling.publish("room", 1)
        assert (await within(anext(subscription))).payload == 1
    await until(lambda: has_connections(connection, 2))
    texts = await connection.fetch(f"SELECT query {OURS}")
    assert [row["query"] for row in texts if "listen" in row["query"].lower()] == []


async def test_message_that_is_committed_long_after_its_id_was_given_out_arrives(
    polling: MessageLayer, connection: Connection
) -> None:
    async with polling.subscribe("room") as subscription:
        transaction = connection.transaction()
        await transaction.start()
        await deliver(connection, ADDRESS, None, [Codec().encode("late", bound_to=ADDRESS)])
        await has_looked(polling, 5)
        await transaction.commit()
        assert (await within(anext(subscription))).payload == "late"


async def test_message_of_a_repeatable_read_transaction_arrives(polling: MessageLayer, connection: Connection) -> None:
    async with polling.subscribe("room") as subscription:
        async with connection.transaction(isolation="repeatable_read"):
            await polling.publish("room", 1, connection=connection)
        assert (await within(anext(subscription))).payload == 1


async def test_session_that_a_poll_happened_to_use_is_not_ended_with_the_node(
    polling: MessageLayer, connection: Connection
) -> None:
    assert await connection.fetchval("SELECT session_began_at FROM pgchannels.node") is not None
    async with polling.subscribe("room") as subscription:
        before = await sessions(connection)
        await connection.execute("SELECT pgchannels.remove_nodes(array_agg(id)) FROM pgchannels.node")
        poller_of(polling).beat_due.set()
        await has_looked(polling, 2)
        assert await sessions(connection) == before
        await polling.publish("room", 1)
        assert (await within(anext(subscription))).payload == 1


async def sessions(connection: Connection) -> set[int]:
    rows = await connection.fetch(f"SELECT pid {OURS}")
    return {row["pid"] for row in rows}


async def test_node_that_polls_does_not_count_as_deaf(polling: MessageLayer, connection: Connection) -> None:
    await node_of(polling).sender.remove_deaf_nodes()
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 1


async def test_subscription_survives_the_loss_of_all_sessions(polling: MessageLayer, connection: Connection) -> None:
    async with polling.subscribe("room") as subscription:
        for number in range(3):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await polling.publish("room", number)
            assert (await within(anext(subscription))).payload == number


async def test_lease_and_log_last_for_several_polls(database_url: str, connection: Connection) -> None:
    async with MessageLayer(database_url, poll=300, expiry=600):
        lasts = await connection.fetchval("SELECT leased_until - now() FROM pgchannels.lease")
        assert lasts > timedelta(seconds=5 * 300)
        assert await connection.fetchval("SELECT retention FROM pgchannels.log") >= timedelta(seconds=3 * 300)


async def test_own_message_does_not_wait_for_the_next_poll(database_url: str) -> None:
    async with MessageLayer(database_url, poll=300, expiry=600) as layer, layer.subscribe("room") as subscription:
        for number in range(3):
            await has_looked(layer, 4)  # until everything before is read
            poller_of(layer)._pause_seconds = 300
            poller_of(layer).beat_due.set()
            await has_looked(layer, 1)  # the next is due in minutes
            await layer.publish("room", number)
            assert (await within(anext(subscription))).payload == number


async def test_idle_layer_runs_one_transaction_per_poll_and_three_per_heartbeat(
    database_url: str, connection: Connection
) -> None:
    opening = await commits_of(database_url, connection, looks=2)
    began = asyncio.get_running_loop().time()
    several = await commits_of(database_url, connection, looks=60)
    beats = (asyncio.get_running_loop().time() - began) // HEARTBEAT_SECONDS + 1
    assert 60 <= several <= opening + 60 + 3 * beats


async def commits_of(url: str, connection: Connection, *, looks: int) -> int:
    """How many transactions a layer without traffic has run, from opening to closing."""
    before = await commits(connection)
    async with MessageLayer(url, poll=0.02, heartbeat=HEARTBEAT_SECONDS) as layer:
        await has_looked(layer, looks)
    await until(lambda: has_connections(connection, 0))  # a session counts its transactions when it ends
    return await commits(connection) - before


async def commits(connection: Connection) -> int:
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    count: int = await connection.fetchval(
        "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    )
    return count


async def test_pause_grows_while_nothing_comes_and_is_short_again_after_something(database_url: str) -> None:
    async with MessageLayer(database_url, poll=300, expiry=600) as layer, layer.subscribe("room") as subscription:
        poller = poller_of(layer)
        await has_looked(layer, 4)
        grown = poller._pause_seconds
        assert grown > 0.1
        await layer.publish("room", 1)
        await within(anext(subscription))
        assert poller._pause_seconds < grown


def test_messages_must_outlive_two_polls() -> None:
    with pytest.raises(ConfigurationError, match="poll=40 needs expiry=80 or longer, and expiry is 60"):
        MessageLayer("postgresql://localhost/db", poll=40)


def test_layer_polls_or_listens() -> None:
    with pytest.raises(ConfigurationError, match="poll and listen_url exclude each other"):
        MessageLayer("postgresql://localhost/db", poll=1, listen_url="postgresql://localhost/db")
