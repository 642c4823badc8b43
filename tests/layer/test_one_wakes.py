"""One message to a work queue wakes one of the nodes that wait for it, and no message waits while a node does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Final

import asyncpg
import pytest

from pgchannels import MessageLayer
from tests.support.log import let_pass, rotate
from tests.support.roads import Connection, node_of
from tests.support.waiting import until, within

QUEUE: Final = "queue:asgi:jobs"
NODES: Final = 3
NO_HEARTBEAT: Final = 3600  # seconds: nothing is mended by chance


class Waiting:
    """A node that receives one message, and how often it was notified of one."""

    def __init__(self, layer: MessageLayer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layer = layer
        self.told = 0
        self.task: asyncio.Task[Any] = asyncio.create_task(layer.receive("jobs"))
        self._tell = node_of(layer).receiver.queues.tell
        monkeypatch.setattr(node_of(layer).receiver.queues, "tell", self._note)

    def _note(self, address: str) -> None:
        self.told += 1
        self._tell(address)

    async def has_token(self) -> None:
        """Wait until the node is idle."""
        tokens = node_of(self.layer).receiver.queues._taker.tokens
        await until(lambda: asyncio.sleep(0, tokens.get(QUEUE, 0) > 0))

    async def cancel(self) -> None:
        """Receive no more."""
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest.fixture
async def waiting(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Waiting]]:
    """Nodes that have become idle one after the other."""
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(NODES):
            layer = await stack.enter_async_context(MessageLayer(database_url, heartbeat=NO_HEARTBEAT))
            nodes.append(Waiting(layer, monkeypatch))
            await nodes[-1].has_token()
        yield nodes
        for node in nodes:
            await node.cancel()


async def test_messages_wake_the_nodes_that_wait_one_after_the_other(
    layer: MessageLayer, waiting: list[Waiting]
) -> None:
    for number, node in enumerate(waiting):
        await layer.send("jobs", number)
        assert await within(node.task) == number
        assert [node.told for node in waiting] == [int(place <= number) for place in range(NODES)]


async def test_messages_of_one_batch_wake_as_many_nodes(layer: MessageLayer, waiting: list[Waiting]) -> None:
    await asyncio.gather(layer.send("jobs", 0), layer.send("jobs", 1))
    received = await within(asyncio.gather(waiting[0].task, waiting[1].task))
    assert sorted(received) == [0, 1]
    assert waiting[2].told == 0


async def test_nobody_is_notified_while_nobody_waits(layer: MessageLayer, waiting: list[Waiting]) -> None:
    for node in waiting:
        await layer.send("jobs", "x")
        await within(node.task)
    told = [node.told for node in waiting]
    await layer.send("jobs", "waits")
    assert await within(waiting[0].layer.receive("jobs")) == "waits"
    assert [node.told for node in waiting] == told


async def test_node_that_was_never_idle_is_not_notified(
    layer: MessageLayer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await layer.send("jobs", "there before")
    async with MessageLayer(database_url, heartbeat=NO_HEARTBEAT) as other:
        busy = Waiting(other, monkeypatch)
        assert await within(busy.task) == "there before"
        await layer.send("jobs", "later")
        assert await within(other.receive("jobs")) == "later"
        assert busy.told == 0


async def test_node_that_is_woken_and_waits_no_more_wakes_another(layer: MessageLayer, waiting: list[Waiting]) -> None:
    await waiting[0].cancel()
    await layer.send("jobs", "x")
    assert await within(waiting[1].task) == "x"
    assert [node.told for node in waiting] == [1, 1, 0]


async def test_node_that_closes_does_not_keep_a_message_from_others(
    layer: MessageLayer, waiting: list[Waiting]
) -> None:
    await within(waiting[0].layer.close())
    await layer.send("jobs", "x")
    finished, _ = await within(asyncio.wait([node.task for node in waiting[1:]], return_when="FIRST_COMPLETED"))
    assert [task.result() for task in finished] == ["x"]


async def test_token_that_leaves_the_log_is_replaced(
    layer: MessageLayer, waiting: list[Waiting], connection: Connection
) -> None:
    for _ in range(4):
        await let_pass(connection, 30)
        await rotate(connection)
        for node in waiting:
            node_of(node.layer).receiver.queues.wake_all()  # as with each heartbeat
            await until(lambda: idle_in_current_slot(connection, at_least=NODES))
    for number in range(NODES):
        await layer.send("jobs", number)
    assert sorted(await within(asyncio.gather(*[node.task for node in waiting]))) == list(range(NODES))


async def idle_in_current_slot(connection: Connection, *, at_least: int) -> bool:
    """Whether so many nodes have unused tokens in the slot that takes new rows."""
    count: int = await connection.fetchval(
        """
        SELECT count(DISTINCT channel) FROM pgchannels.message
        WHERE address = 'idle:asgi:jobs' AND slot = (SELECT slot FROM pgchannels.log_state) AND number > coalesce((
            SELECT max(number) FROM pgchannels.message WHERE address = 'woken:asgi:jobs'
        ), 0)
        """
    )
    return count >= at_least


async def test_node_of_the_version_before_is_notified_of_every_message(
    layer: MessageLayer, waiting: list[Waiting], owner_url: str
) -> None:
    heard: list[object] = []
    old = await asyncpg.connect(owner_url)
    node = await old.fetchval("SELECT gen_random_uuid()")
    await old.add_listener(str(node), lambda *arguments: heard.append(arguments[-1]))
    await old.execute("INSERT INTO pgchannels.subscription (address, node) VALUES ($1, $2)", QUEUE, node)
    for number in range(NODES):
        await layer.send("jobs", number)
        await until(lambda number=number: asyncio.sleep(0, len(heard) == number + 1))  # type: ignore[misc]
    assert heard == [f"q {QUEUE}"] * NODES
    await old.close()


async def test_no_message_waits_while_many_workers_come_and_go(
    layer: MessageLayer, waiting: list[Waiting], connection: Connection
) -> None:
    received: list[int] = []
    random = Random(1)

    async def work(node: Waiting) -> None:
        while True:
            receiving = asyncio.create_task(node.layer.receive("jobs"))
            await asyncio.sleep(0)
            if random.random() < 0.3:
                receiving.cancel()
            outcome = (await asyncio.gather(receiving, return_exceptions=True))[0]
            if isinstance(outcome, int):
                received.append(outcome)

    for node in waiting:
        await node.cancel()
    working = [asyncio.create_task(work(node)) for node in waiting]
    for number in range(60):
        await layer.send("jobs", number)
        await until(lambda number=number: asyncio.sleep(0, len(received) > number))  # type: ignore[misc]
    for task in working:
        task.cancel()
    await asyncio.wait(working)
    assert received == list(range(60))
