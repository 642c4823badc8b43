"""Many loops and threads of one process, one after another and at the same time."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest
import uvloop

from pgchannels import MessageLayer
from tests.support.connections import connections_to_this_database, has_connections
from tests.support.waiting import until, within

CONNECTIONS_OF_A_NODE = 3
RECEIVING_THREADS = 4
SENDING_THREADS = 4
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes event loops of one kind."""
    return LOOPS[request.param]


async def test_loops_one_after_another_leave_nothing(
    database_url: str,
    connection: "asyncpg.Connection[asyncpg.Record]",
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    layer, threads = MessageLayer(database_url), threading.active_count()

    def run_loops() -> None:
        for number in range(10):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(exchange(layer, number, close=number % 2 == 0))
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(within(layer.publish("other", number)))

    with ThreadPoolExecutor(1) as executor:
        await asyncio.get_running_loop().run_in_executor(executor, run_loops)
    await until(lambda: has_connections(connection, 1))  # the background sender's
    await layer.close()
    await until(lambda: has_connections(connection, 0))
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 0
    assert threading.active_count() <= threads + 1  # the executor of this loop, which closing has used


async def exchange(layer: MessageLayer, number: int, *, close: bool) -> None:
    """Receive what is published here; without `close` the end of the loop has to close."""
    await layer.open()
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", number)
        assert (await within(anext(subscription))).payload == number
    if close:
        await layer.close()


async def test_loops_at_the_same_time_have_three_connections_each_and_senders_share_one(
    database_url: str,
    connection: "asyncpg.Connection[asyncpg.Record]",
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    layer = MessageLayer(database_url)
    listening = threading.Barrier(RECEIVING_THREADS + 1)
    counted = threading.Barrier(RECEIVING_THREADS + 1)
    total = SENDING_THREADS * 20

    async def receive() -> list[tuple[int, int]]:
        async with layer, layer.subscribe("room") as subscription:
            await asyncio.to_thread(listening.wait, 60)
            payloads = [tuple((await within(anext(subscription))).payload) for _ in range(total)]
            await asyncio.to_thread(counted.wait, 60)
        return payloads

    def run_receiver() -> list[tuple[int, int]]:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(receive())

    def run_sender(sender: int) -> None:
        for number in range(20):
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(within(layer.publish("room", [sender, number])))

    with ThreadPoolExecutor(RECEIVING_THREADS + SENDING_THREADS + 1) as executor:
        loop = asyncio.get_running_loop()
        receiving = [loop.run_in_executor(executor, run_receiver) for _ in range(RECEIVING_THREADS)]
        await loop.run_in_executor(executor, listening.wait, 60)
        sending = [loop.run_in_executor(executor, run_sender, sender) for sender in range(SENDING_THREADS)]
        await asyncio.gather(*sending)
        assert await connections_to_this_database(connection) == CONNECTIONS_OF_A_NODE * RECEIVING_THREADS + 1
        await loop.run_in_executor(executor, counted.wait, 60)
        received = await asyncio.gather(*receiving)
    assert all(one == received[0] for one in received)
    for sender in range(SENDING_THREADS):
        assert [number for who, number in received[0] if who == sender] == list(range(20))
    await until(lambda: has_connections(connection, 0))


async def test_loop_that_only_sends_goes_on_while_others_open_and_close(database_url: str) -> None:
    layer, stop = MessageLayer(database_url), threading.Event()

    async def publish() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            await within(layer.publish("room", number))
        return number

    with ThreadPoolExecutor(2) as executor:
        loop = asyncio.get_running_loop()
        publishing = loop.run_in_executor(executor, lambda: asyncio.run(publish()))
        try:
            for number in range(10):
                await loop.run_in_executor(executor, lambda: asyncio.run(hear(layer, close=number % 2 == 0)))  # noqa: B023
        finally:
            stop.set()
            sent = await publishing
    await layer.close()
    async with layer:
        history = [message.payload for message in await layer.history("room", limit=10**6)]
    assert history == list(range(1, sent + 1))


async def hear(layer: MessageLayer, *, close: bool) -> None:
    """Be open until some messages of another loop have come; without `close` the end of the loop has to close."""
    await layer.open()
    async with layer.subscribe("room") as subscription:
        for _ in range(20):
            await within(anext(subscription))
    if close:
        await layer.close()
