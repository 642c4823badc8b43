"""A layer with `connections=2` sends on the connection that also reads: what waits for what, and what does not."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, MessageLayer
from pgchannels.database.connections import Connections
from pgchannels.database.driver import Records
from pgchannels.django import PostgresChannelLayer
from tests.conftest import new_database
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SESSIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgchannels%' AND datname = $1"
HOLD_ROOM: Final = "SELECT FROM pgchannels.stripe WHERE number = hashtext('topic:asgi:room') & 63 FOR UPDATE"
WAITING: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
LET_LEASES_END_SOON: Final = "UPDATE pgchannels.node SET leased_until = now() + interval '8 s'"
HAS_LEASE: Final = "SELECT bool_and(leased_until > now() + interval '20 s') FROM pgchannels.node"
ANOTHER: Final = "other"  # its lock is not that of `room`


def connections_of(layer: MessageLayer) -> Connections:
    return node_of(layer)._connections


async def session_of(layer: MessageLayer) -> Records:
    """The one that sends and reads: as a read, this must be repeated if the connection was lost just now."""
    return await connections_of(layer).fetch_text("SELECT pg_backend_pid()")


@asynccontextmanager
async def room_held(owner_url: str) -> AsyncIterator[None]:
    """Somebody's transaction holds what every message to `room` needs."""
    blocker = await asyncpg.connect(owner_url)
    try:
        async with blocker.transaction():
            await blocker.execute(HOLD_ROOM)
            yield
    finally:
        await blocker.close()


async def is_true(connection: Connection, query: str) -> bool:
    return bool(await connection.fetchval(query))


@pytest.fixture
def second_url(server_url: str, template_name: str) -> Iterator[str]:
    """The database of a second server."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield url


@pytest.mark.parametrize("option", [{}, {"poll": 0.05}], ids=["listening", "polling"])
async def test_each_layer_that_receives_has_two_sessions_whatever_it_does(
    owner_url: str, connection: Connection, option: dict[str, Any]
) -> None:
    name = await connection.fetchval("SELECT current_database()")
    async with (
        MessageLayer(owner_url, connections=2, **option) as layer,
        MessageLayer(owner_url, connections=2, **option) as other,
        layer.subscribe("room") as subscription,
    ):
        for _ in range(3):
            await asyncio.gather(*[other.publish("room", "x" * size) for size in (10, 10_000)])
            assert [len((await within(anext(subscription))).payload) for _ in range(2)] == [10, 10_000]
            await asyncio.gather(layer.send("queue", 1), layer.history("room"), other.position("room"))
            async with layer.claim("queue"):
                pass
            assert await connection.fetchval(SESSIONS, name) == 4


async def test_each_server_has_two_sessions(owner_url: str, second_url: str, connection: Connection) -> None:
    async with MessageLayer({"a": owner_url, "b": second_url}, connections=2) as layer:
        await layer.publish_many([(f"room.{number}", number) for number in range(20)])
        names = [url.rpartition("/")[2].partition("?")[0] for url in (owner_url, second_url)]
        assert [await connection.fetchval(SESSIONS, name) for name in names] == [2, 2]


async def test_layer_of_channels_has_two_sessions(owner_url: str, connection: Connection) -> None:
    layer = PostgresChannelLayer(owner_url, connections=2)
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    await layer.group_send("group", {"type": "chat.message"})
    assert await within(layer.receive(channel)) == {"type": "chat.message"}
    await layer.flush()
    name = await connection.fetchval("SELECT current_database()")
    assert await connection.fetchval(SESSIONS, name) == 2
    await layer.close()


async def test_send_that_waits_for_a_lock_lets_its_node_live_hear_and_read(
    owner_url: str, connection: Connection, layer: MessageLayer
) -> None:
    async with (
        MessageLayer(owner_url, connections=2, heartbeat=0.5) as waiting,
        waiting.subscribe("room", ANOTHER) as subscription,
    ):
        async with room_held(owner_url):
            sending = asyncio.create_task(waiting.publish("room", "held"))
            await until(lambda: is_true(connection, WAITING))
            await connection.execute(LET_LEASES_END_SOON)
            await layer.publish(ANOTHER, "small")
            assert (await within(anext(subscription))).payload == "small"
            await layer.publish(ANOTHER, "large" * 5_000)  # is read on the connection that sends
            assert (await within(anext(subscription))).payload == "large" * 5_000
            assert len(await within(waiting.history(ANOTHER))) == 2
            await until(lambda: is_true(connection, HAS_LEASE))
            assert not sending.done()
        await within(sending)
        assert (await within(anext(subscription))).payload == "held"
        assert node_of(waiting)._listener.reconnected == 0


async def test_send_that_waits_in_vain_for_its_turn_was_not_sent_and_disturbs_nobody(database_url: str) -> None:
    async with MessageLayer(database_url, connections=2, send_timeout=0.2) as layer:
        connections = connections_of(layer)
        [(session,)] = await connections.fetch_text("SELECT pg_backend_pid()")
        slow = asyncio.create_task(connections.fetch_text("SELECT pg_backend_pid() FROM pg_sleep(1)"))
        await until(lambda: asyncio.sleep(0, connections._for_all.turn.locked()))
        with pytest.raises(DatabaseUnavailable) as raised:
            await within(layer.publish("room", "refused"))
        assert not raised.value.may_have_been_sent
        assert not slow.done()
        assert [pid for (pid,) in await within(slow)] == [session]
        await within(layer.publish("room", "taken"))
        assert [message.payload for message in await layer.history("room")] == ["taken"]


async def test_send_waits_for_one_read_of_many_and_a_read_for_one_batch(database_url: str) -> None:
    ended: list[str] = []

    def noted(task: asyncio.Task[object]) -> None:
        ended.append(task.get_name())

    async with MessageLayer(database_url, connections=2) as layer:
        connections = connections_of(layer)
        async with connections._for_all.turn:
            reads = [asyncio.create_task(connections.fetch_text("SELECT 1"), name="read") for _ in range(20)]
            await asyncio.sleep(0)
            sends = [asyncio.create_task(publish(layer, size), name="send") for size in (1, 300_000, 300_000)]
            for task in (*reads, *sends):
                task.add_done_callback(noted)
            await asyncio.sleep(0)
        await within(asyncio.gather(*reads, *sends))
    assert ended.index("send") <= 2
    last = len(ended) - 1 - ended[::-1].index("send")
    assert last <= 2 * len(sends) + 1


async def publish(layer: MessageLayer, size: int) -> None:
    await layer.publish("room", "x" * size)


async def test_reads_go_on_after_a_send_has_lost_the_connection(database_url: str, connection: Connection) -> None:
    async with MessageLayer(database_url, connections=2) as layer, layer.subscribe("room") as subscription:
        for number in range(5):
            [(session,)] = await node_of(layer)._read(lambda: session_of(layer), "could not tell the session")
            sending = asyncio.create_task(layer.publish("room", number))
            reading = asyncio.create_task(layer.history("room"))
            await connection.execute("SELECT pg_terminate_backend($1)", session)
            await within(asyncio.gather(sending, reading))
            assert (await within(anext(subscription))).payload == number
