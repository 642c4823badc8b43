"""Servers that restart and crash under traffic, and what is told of it."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, Gap, GapReason, MessageLayer
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from tests.support.proxy import Proxy
from tests.support.traffic import LARGE, Stream, traffic
from tests.support.waiting import until, within

HEARTBEAT_SECONDS = 0.3
ROUNDS = 2
READ = b"\x0ftopic:asgi:room"  # the topic as a statement's parameter, with its length: not in notifications


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A durable server with the schema."""
    with EmbeddedServer(durable=True) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


async def restart_fast(server: EmbeddedServer) -> None:
    await asyncio.to_thread(server.restart, "fast")


async def restart_immediate(server: EmbeddedServer) -> None:
    await asyncio.to_thread(server.restart, "immediate")


async def kill(server: EmbeddedServer) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def kill_one_backend(server: EmbeddedServer) -> None:
    """The server notices, ends all others, and recovers by itself; until then, others may commit what is lost."""
    killed, another = [await asyncpg.connect(server.url()) for _ in range(2)]
    os.kill(killed.get_server_pid(), signal.SIGKILL)
    for connection in (killed, another):
        with suppress(asyncpg.PostgresConnectionError, ConnectionError):
            await connection.execute("SELECT pg_sleep(60)")
        connection.terminate()
    await until(lambda: takes_connections(server))


async def takes_connections(server: EmbeddedServer) -> bool:
    """Whether the server has recovered: it takes none before all that were there have ended."""
    try:
        await (await asyncpg.connect(server.url())).close()
    except (asyncpg.PostgresError, ConnectionError):
        return False
    return True


async def run_traffic_through(
    fault: Callable[[EmbeddedServer], Awaitable[None]], server: EmbeddedServer
) -> list[Stream]:
    """Let the fault happen while messages are on their way, again and again; returns the verified ledgers."""
    async with (
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as receiver,
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as sender,
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as other,
    ):
        async with traffic([sender, other], receiver) as running:
            for _ in range(ROUNDS):
                async with asyncio.TaskGroup() as sending:
                    sending.create_task(within(running.send(100, senders=[0, 1])))
                    await within(running.arriving())
                    await within(fault(server))
            await within(running.finish())
        running.verify()
        return list(running.streams)


async def test_nothing_is_lost_in_a_fast_restart(server: EmbeddedServer) -> None:
    streams = await run_traffic_through(restart_fast, server)
    assert [stream.gaps for stream in streams] == [[], [], []]
    assert [len(stream.labels) for stream in streams] == [2 * 100 * ROUNDS] * 3


@pytest.mark.parametrize("crash", [restart_immediate, kill, kill_one_backend], ids=lambda crash: crash.__name__)
async def test_each_receiver_is_told_of_each_crash(
    crash: Callable[[EmbeddedServer], Awaitable[None]], server: EmbeddedServer
) -> None:
    for stream in await run_traffic_through(crash, server):
        assert [gap.reason for gap in stream.gaps] == [GapReason.CRASH] * ROUNDS, stream.name


async def test_publish_that_a_crash_left_unanswered_is_not_delivered_twice(server: EmbeddedServer) -> None:
    async with (
        Proxy(server.url()) as proxy,
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as layer,
        MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS, send_timeout=5) as behind,
        layer.subscribe("room", on_gap=lambda _: None) as subscription,
    ):
        proxy.freeze("to_client", new_connections=False)
        publishing = asyncio.create_task(behind.publish("room", "delivered"))
        assert (await within(anext(subscription))).payload == "delivered"
        await kill(server)
        proxy.restore(held="drop")
        with suppress(DatabaseUnavailable):
            await within(publishing)
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"


async def test_subscriber_gets_what_is_published_after_a_crash(server: EmbeddedServer) -> None:
    gaps: list[Gap] = []
    async with (
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as layer,
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as other,
        layer.subscribe("room", on_gap=gaps.append) as subscription,
    ):
        before = await other.publish("room", "before")
        assert (await within(anext(subscription))).payload == "before"
        await kill(server)
        after = await within(other.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"
        assert after > before
        assert gaps == [Gap(GapReason.CRASH, None)]


async def test_crash_is_told_before_messages_that_were_sent_after_it(server: EmbeddedServer) -> None:
    received: list[object] = []
    async with (
        Proxy(server.url()) as proxy,
        MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS) as behind,
        behind.subscribe("room", on_gap=received.append) as subscription,
    ):
        await behind.publish("room", "before")
        received.append((await within(anext(subscription))).payload)
        proxy.refuse()
        await kill(server)
        proxy.restore()
        proxy.freeze_at(b".listen(")
        await within(proxy.holding(b".listen("))
        async with MessageLayer(server.url()) as layer:
            await layer.publish("room", "after")
            proxy.restore()
            received.append((await within(anext(subscription))).payload)
            await layer.publish("room", "last")
            received.append((await within(anext(subscription))).payload)
    assert received == ["before", Gap(GapReason.CRASH, None), "after", "last"]


async def test_queue_receiver_is_told_of_a_crash_before_it_gets_what_was_sent_after_it(server: EmbeddedServer) -> None:
    received: list[object] = []
    async with (
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as layer,
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as other,
    ):
        await other.send("jobs", "before")
        received.append(await within(layer.receive("jobs", on_gap=received.append)))
        receiving = asyncio.create_task(layer.receive("jobs", on_gap=received.append))
        await kill(server)
        await within(other.send("jobs", "after"))
        received.append(await within(receiving))
    assert received == ["before", Gap(GapReason.CRASH, None), "after"]


async def test_large_message_that_went_with_a_crash_is_told_as_lost_in_it(server: EmbeddedServer) -> None:
    gaps: list[Gap] = []
    async with (
        Proxy(server.url()) as proxy,
        MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS) as layer,
        MessageLayer(proxy.url, heartbeat=60) as behind,
        behind.subscribe("room", on_gap=gaps.append) as subscription,
    ):
        proxy.freeze_at(READ)
        await layer.publish("room", "x" * LARGE)
        await within(proxy.holding(READ))
        await kill(server)
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"
    assert {gap.reason for gap in gaps} == {GapReason.CRASH}
