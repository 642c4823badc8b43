"""Traffic over two servers, one of which crashes again and again: the other one's topics do not notice."""

import asyncio
from collections.abc import Iterator

import pytest

from pgchannels import DatabaseUnavailable, Gap, GapReason, MessageLayer, Subscription
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from pgchannels.servers.placement import rendezvous
from tests.support.waiting import within

TOPICS = [f"room.{number}" for number in range(8)]
ON = {topic: rendezvous("ab", f"topic:asgi:{topic}") for topic in TOPICS}
CRASHES = 2


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server that can be killed."""
    with EmbeddedServer(durable=True) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


async def test_every_topic_keeps_its_order_and_only_the_crashed_server_loses_messages(
    server: EmbeddedServer, owner_url: str
) -> None:
    gaps: list[Gap] = []
    received: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    sent: dict[str, list[int]] = {topic: [] for topic in TOPICS}
    crashed = asyncio.Event()
    async with (
        MessageLayer({"a": server.url(), "b": owner_url}, heartbeat=0.3, send_timeout=2) as layer,
        layer.subscribe(*TOPICS, on_gap=gaps.append) as subscription,
        asyncio.TaskGroup() as tasks,
    ):
        publishers = [tasks.create_task(publish(layer, topic, sent[topic], crashed)) for topic in TOPICS]
        receiving = tasks.create_task(receive(subscription, received))
        for _ in range(CRASHES):
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        crashed.set()
        await within(asyncio.wait(publishers))
        await within(receiving)
    for topic, numbers in received.items():
        assert numbers == sorted(set(numbers)), topic
        assert set(sent[topic]) <= set(numbers) or ON[topic] == "a", topic
    assert {gap.reason for gap in gaps} <= {GapReason.CRASH}
    lost = [topic for topic in TOPICS if not set(sent[topic]) <= set(received[topic])]
    assert gaps or not lost


async def publish(layer: MessageLayer, topic: str, sent: list[int], crashed: asyncio.Event) -> None:
    """Publish numbers until the crashes are over, and then until one was taken: it is the last."""
    number = 0
    while True:
        number += 1
        is_last = crashed.is_set()
        try:
            await layer.publish(topic, {"number": number, "is_last": is_last})
        except DatabaseUnavailable:
            continue
        sent.append(number)
        if is_last:
            return


async def receive(subscription: Subscription, received: dict[str, list[int]]) -> None:
    """Receive until the last message of each topic."""
    ended: set[str] = set()
    async for message in subscription:
        received[message.topic].append(message.payload["number"])
        if message.payload["is_last"]:
            ended.add(message.topic)
        if len(ended) == len(TOPICS):
            return
