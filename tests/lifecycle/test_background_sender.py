"""Who has no node in its own loop sends by the one background sender of its process."""

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest
import uvloop

from pgchannels import DatabaseUnavailable, MessageLayer
from pgchannels.django import PostgresChannelLayer
from pgchannels.process.background import BackgroundSender
from pgchannels.sending.outgoing import Outgoing
from pgchannels.sending.sender import Sender
from tests.support.connections import connections_to_this_database, has_connections
from tests.support.proxy import Proxy
from tests.support.roads import process_of
from tests.support.waiting import until, within

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


async def test_loop_that_is_blocked_blocks_nobody_else(database_url: str) -> None:
    layer = MessageLayer(database_url)
    is_blocked, release = threading.Event(), threading.Event()

    async def block() -> None:
        async with layer:
            is_blocked.set()
            release.wait(60)

    with ThreadPoolExecutor(1) as executor:
        blocking = asyncio.get_running_loop().run_in_executor(executor, lambda: asyncio.run(block()))
        try:
            await within(asyncio.to_thread(is_blocked.wait))
            await within(asyncio.to_thread(layer.sync.publish, "room", "by a thread"))
            await within(layer.publish("room", "by another loop"))
        finally:
            release.set()
            await blocking
    await layer.close()
    async with layer:
        assert [message.payload for message in await layer.history("room")] == ["by a thread", "by another loop"]


async def test_loops_in_turn_with_threads_keep_one_background_sender(database_url: str) -> None:
    layer = MessageLayer(database_url)
    before = background_senders()
    for number in range(15):
        await asyncio.to_thread(layer.sync.publish, "room", number)
        await asyncio.to_thread(asyncio.run, open_and_publish(layer))
    assert background_senders() <= before + 1
    await layer.close()


def test_sends_that_failed_leave_no_memory() -> None:
    layer = MessageLayer("postgresql://postgres@/postgres?host=/nonexistent", send_timeout=0.02)

    def fail(_: int) -> None:
        with pytest.raises(DatabaseUnavailable):
            layer.sync.publish("room", "x" * 10_000)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fail, range(100)))
        gc.collect()
        tracemalloc.start()
        try:
            list(threads.map(fail, range(500)))
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 1024 * 1024
        finally:
            tracemalloc.stop()
            asyncio.run(layer.close())


def background_senders() -> int:
    """How many there are in this process."""
    gc.collect()
    return sum(type(thing) is BackgroundSender for thing in gc.get_objects())


async def open_and_publish(layer: MessageLayer) -> None:
    async with layer:
        await layer.publish("room", "by a node")


async def test_first_send_waits_for_a_database_that_is_away(database_url: str) -> None:
    async with Proxy(database_url) as proxy:
        layer = MessageLayer(proxy.url)
        proxy.refuse()
        sending = [asyncio.create_task(layer.publish("room", 1))]
        sending.append(asyncio.create_task(asyncio.to_thread(layer.sync.publish, "room", 2)))
        await until(lambda: has_been_called(layer))
        proxy.restore()
        await within(asyncio.gather(*sending))
        await layer.close()


async def has_been_called(layer: MessageLayer) -> bool:
    """Whether two messages are on their way in the background."""
    service = process_of(layer)._background._service
    return service is not None and len(service._under_way) == 2


async def test_first_send_fails_after_the_time_that_a_send_may_take(database_url: str) -> None:
    async with Proxy(database_url) as proxy:
        layer = MessageLayer(proxy.url, send_timeout=0.2)
        proxy.refuse()
        for sending in (layer.publish("room", 1), asyncio.to_thread(layer.sync.publish, "room", 2)):
            with pytest.raises(DatabaseUnavailable, match=r"within send_timeout=0\.2 seconds") as raised:
                await within(sending)
            assert not raised.value.may_have_been_sent
        await layer.close()
    async with MessageLayer(database_url) as layer:
        assert await layer.history("room") == []


async def test_adding_to_a_group_leaves_one_connection(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = PostgresChannelLayer(database_url)
    await asyncio.to_thread(layer.sync.group_send, "room", {"type": "chat.message"})
    for _ in range(3):
        await asyncio.to_thread(layer.sync.group_add, "room", "jobs")
    await until(lambda: has_connections(connection, 1))
    await asyncio.to_thread(layer.sync.close)


class Holding:
    """Blocks the thread that sends when it is given "hold"."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_held, self.release = threading.Event(), threading.Event()
        self._send = Sender.send
        monkeypatch.setattr(Sender, "send", lambda sender, outgoing: self._hold(sender, outgoing))

    def _hold(self, sender: Sender, outgoing: Outgoing) -> Awaitable[int]:
        if b"hold" in outgoing.envelope:
            self.is_held.set()
            self.release.wait(60)
        return self._send(sender, outgoing)


async def test_call_that_gave_up_before_it_was_begun_is_never_sent(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holding = Holding(monkeypatch)
    layer = MessageLayer(database_url, send_timeout=2)
    await layer.publish("room", "first")
    held = asyncio.create_task(asyncio.to_thread(layer.sync.publish, "room", "hold"))
    try:
        await within(asyncio.to_thread(holding.is_held.wait))
        in_vain = [layer.publish("room", 1), asyncio.to_thread(layer.sync.publish, "room", 2)]
        outcomes = await within(asyncio.gather(*in_vain, held, return_exceptions=True))
    finally:
        holding.release.set()
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailable] * 3
    assert [getattr(outcome, "may_have_been_sent", None) for outcome in outcomes] == [False, False, True]
    await within(layer.publish("room", "last"))
    await layer.close()
    async with layer:
        assert [message.payload for message in await layer.history("room")] == ["first", "hold", "last"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Python tells of sockets that nobody has closed
@pytest.mark.parametrize("kind", LOOPS)
async def test_node_of_a_loop_that_was_closed_with_its_tasks_is_swept(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", kind: str
) -> None:
    layer = MessageLayer(database_url)
    await asyncio.to_thread(close_with_tasks, layer, LOOPS[kind])
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 1
    await within(layer.publish("room", "sweeps"))
    await until(lambda: has_connections(connection, 1))
    await until(lambda: has_no_node(connection))
    await layer.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_flush_does_not_wait_for_loops_that_were_closed_with_their_tasks(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = PostgresChannelLayer(database_url, heartbeat=1000)  # leases that no test waits for
    await layer.new_channel()
    await asyncio.to_thread(close_channel_layer_with_tasks, layer)
    await within(layer.flush())
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 1
    await layer.close()


def close_with_tasks(layer: MessageLayer, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """As a script does that knows nothing of tasks."""
    loop = new_loop()
    loop.run_until_complete(layer.open())
    loop.run_until_complete(layer.publish("room", 1))
    loop.close()


def close_channel_layer_with_tasks(layer: PostgresChannelLayer) -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(layer.new_channel())
    loop.close()


async def has_no_node(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return not await connection.fetchval("SELECT count(*) FROM pgchannels.node")


async def test_background_sender_and_node_have_four_connections(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await asyncio.to_thread(layer.sync.publish, "room", 1)
    assert await connections_to_this_database(connection) == 4


async def test_flush_is_as_patient_as_a_lease_is_long(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = PostgresChannelLayer(database_url, send_timeout=1)
    await layer.group_send("room", {"type": "the.first"})  # before it there is no log
    await connection.execute(
        """
        INSERT INTO pgchannels.node (id, name, leased_until) VALUES (gen_random_uuid(), 'killed', now() + '2 s');
        INSERT INTO pgchannels.subscription (address, node) SELECT 'node:asgi:killed', id FROM pgchannels.node;
        INSERT INTO pgchannels.lease SELECT id, 'node:asgi:killed', leased_until FROM pgchannels.node
        """
    )
    await within(layer.flush())
    assert not await connection.fetchval("SELECT count(*) FROM pgchannels.node WHERE leased_until > now()")
    await layer.close()


async def test_call_that_was_interrupted_before_it_woke_the_thread_keeps_no_other_from_it(database_url: str) -> None:
    layer = MessageLayer(database_url)
    await layer.publish("room", 1)
    for _ in range(2):
        process_of(layer)._background._is_woken = True  # what an exception of a signal handler may leave
        await within(layer.publish("room", 2))
        process_of(layer)._background._is_woken = True
        await within(asyncio.to_thread(layer.sync.publish, "room", 3))
        await asyncio.to_thread(layer.sync.close)
    await layer.close()


async def test_flush_that_waits_for_a_lease_keeps_nobody_from_opening_and_sending(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = PostgresChannelLayer(database_url)
    await layer.group_send("room", {"type": "the.first"})
    await connection.execute(
        "INSERT INTO pgchannels.lease VALUES (gen_random_uuid(), 'node:asgi:away', now() + '1 hour')"
    )
    flush = asyncio.create_task(asyncio.to_thread(layer.sync.flush))

    async def is_waiting() -> bool:
        service = process_of(layer)._background._service
        return service is not None and any(call.is_patient for call in service._under_way.values())

    await until(is_waiting)
    channel = await within(layer.new_channel())  # which stops the background sender before
    await within(asyncio.to_thread(layer.sync.send, channel, {"type": "hello"}))
    assert await within(layer.receive(channel)) == {"type": "hello"}
    assert not flush.done()
    await connection.execute("DELETE FROM pgchannels.lease WHERE address = 'node:asgi:away'")
    await within(flush)
    await layer.close()


async def test_many_who_ask_at_once_share_one_connection(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(database_url) as proxy:
        links: list[object] = []
        new_link = proxy._new_link

        def counted() -> Any:
            links.append(new_link())
            return links[-1]

        monkeypatch.setattr(proxy, "_new_link", counted)
        layer = PostgresChannelLayer(proxy.url)
        await asyncio.gather(*(layer.group_add(f"room-{number}", "jobs") for number in range(50)))
        await layer.close()
    assert 1 <= len(links) <= 3
