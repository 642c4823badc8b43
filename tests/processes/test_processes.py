"""Promises across processes."""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random

import asyncpg

from pgchannels import MessageLayer, Position
from tests.support.resuming import Resuming
from tests.support.waiting import within

ROOT = Path(__file__).parents[2]

PUBLISHERS, SUBSCRIBERS, TOPICS, MESSAGES_EACH = 4, 4, 50, 2_500


@asynccontextmanager
async def running(module: str, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process of the tests, ended at the latest with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        module,
        *map(str, arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_four_processes_hear_four_others_completely_once_and_in_order(database_url: str) -> None:
    total = PUBLISHERS * MESSAGES_EACH
    async with AsyncExitStack() as stack:
        subscribers = [
            await stack.enter_async_context(running("tests.processes.subscriber", database_url, total, TOPICS))
            for _ in range(SUBSCRIBERS)
        ]
        for subscriber in subscribers:
            assert subscriber.stdout is not None
            assert await within(subscriber.stdout.readline()) == b"ready\n"
        publishers = [
            await stack.enter_async_context(
                running("tests.processes.publisher", database_url, n, MESSAGES_EACH, TOPICS)
            )
            for n in range(PUBLISHERS)
        ]
        outputs = await within(asyncio.gather(*[subscriber.communicate() for subscriber in subscribers]))
        await within(asyncio.gather(*[publisher.wait() for publisher in publishers]))
        assert [process.returncode for process in (*subscribers, *publishers)] == [0] * 8
    for output, _ in outputs:
        require_complete_and_in_order(output)


def require_complete_and_in_order(output: bytes) -> None:
    """Each sender's messages in order in each topic, positions growing in each topic, all there."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    positions: dict[str, list[Position]] = defaultdict(list)
    for topic, payload, position in map(json.loads, output.splitlines()):
        numbers[topic, payload["sender"]].append(payload["number"])
        positions[topic].append(Position.parse(position))
    for (topic, _), received in numbers.items():
        assert received == list(range(int(topic.removeprefix("topic")), MESSAGES_EACH, TOPICS))
    assert len(numbers) == TOPICS * PUBLISHERS
    for ordered in positions.values():
        assert all(one < two for one, two in pairwise(ordered))


async def test_reader_that_leaves_and_resumes_while_four_processes_publish_has_everything_once(
    database_url: str, layer: MessageLayer, other_layer: MessageLayer
) -> None:
    topics = 4
    total = PUBLISHERS * MESSAGES_EACH // topics
    begin = {f"topic{number}": await layer.publish(f"topic{number}", "seen") for number in range(topics)}
    readers = [
        Resuming(one, topic, position, Random(number))
        for number, (topic, position) in enumerate(begin.items())
        for one in (layer, other_layer)
    ]
    async with AsyncExitStack() as stack:
        for n in range(PUBLISHERS):
            process = running("tests.processes.publisher", database_url, n, MESSAGES_EACH, topics)
            await stack.enter_async_context(process)
        await within(asyncio.gather(*(reader.read(total) for reader in readers)))
    for reader in readers:
        assert reader.received == await layer.history(reader.topic, since=begin[reader.topic], limit=10**6)
    assert min(reader.leaves for reader in readers) > 5


async def test_message_without_subscribers_costs_one_insert_and_no_notification(
    database_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    assert await queue_usage_after_publishing(database_url, connection) == 0
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.message") == 2_000
    async with layer.subscribe("topic0"):
        assert await queue_usage_after_publishing(database_url, connection) > 0


async def queue_usage_after_publishing(url: str, connection: "asyncpg.Connection[asyncpg.Record]") -> float:
    """How full the queue of notifications is after another process published 2,000 messages."""
    # A listener inside a transaction holds the queue back: nothing that was notified leaves it.
    await connection.execute('LISTEN "nobody"')
    async with connection.transaction(), running("tests.processes.publisher", url, "sender", 2_000, 1) as publisher:
        await connection.fetchval("SELECT txid_current()")
        assert await within(publisher.wait()) == 0
        usage: float = await connection.fetchval("SELECT pg_notification_queue_usage()")
    return usage


async def test_many_local_subscribers_cost_the_database_as_much_as_one(
    database_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    notifications: list[tuple[str, ...]] = []
    node = await connection.fetchval("SELECT id::text FROM pgchannels.node")
    await connection.add_listener(node, lambda *told: notifications.append(told) if told[-1][0] == "m" else None)
    costs = []
    for count in (1, 10_000):
        async with AsyncExitStack() as stack:
            subscriptions = [await stack.enter_async_context(layer.subscribe("topic0")) for _ in range(count)]
            notifications.clear()
            await connection.execute("DELETE FROM pgchannels.message")
            async with running("tests.processes.publisher", database_url, "sender", 10, 1) as publisher:
                assert await within(publisher.wait()) == 0
            for subscription in {subscriptions[0], subscriptions[-1]}:
                for _ in range(10):
                    await within(anext(subscription))
            rows = await connection.fetchval(
                "SELECT count(*) FROM pgchannels.message WHERE address = 'topic:asgi:topic0'"
            )
            hosted = await connection.fetchval("SELECT count(*) FROM pgchannels.subscription")
        costs.append((rows, hosted, len(notifications)))
    assert costs[0] == costs[1]
