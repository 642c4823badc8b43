"""Connections that bring little at a time: what is large takes longer than heartbeats and limits, and comes."""

from collections.abc import AsyncIterator
from typing import Final

import pytest

from pgchannels import Gap, MessageLayer
from tests.support.proxy import Proxy
from tests.support.waiting import within

HEARTBEAT_SECONDS: Final = 0.3
BYTES_PER_SECOND: Final = 1_000_000
LARGE: Final = 4_000_000  # takes longer than a probe of the connection may, several times over


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[MessageLayer]:
    """A layer behind the proxy."""
    async with MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS) as layer:
        yield layer
        proxy.restore()


async def test_large_message_comes_over_a_slow_link_and_what_was_sent_behind_it(
    proxy: Proxy, behind: MessageLayer, layer: MessageLayer
) -> None:
    gaps: list[Gap] = []
    async with behind.subscribe("large", "small", on_gap=gaps.append) as subscription:
        proxy.slow(BYTES_PER_SECOND)
        await layer.publish("large", b"x" * LARGE)
        await layer.publish("small", "behind it")
        received = [await within(anext(subscription)) for _ in range(2)]
    assert [(message.topic, len(message.payload)) for message in received] == [("large", LARGE), ("small", 9)]
    assert gaps == []


async def test_large_messages_of_many_topics_are_read_again_over_a_slow_link_after_a_lost_connection(
    proxy: Proxy, behind: MessageLayer, layer: MessageLayer
) -> None:
    topics = [f"topic-{number}" for number in range(4)]
    gaps: list[Gap] = []
    async with behind.subscribe(*topics, on_gap=gaps.append) as subscription:
        proxy.refuse()
        proxy.cut()
        for topic in topics:
            await layer.publish(topic, b"x" * (LARGE // len(topics)))
        proxy.restore()
        proxy.slow(BYTES_PER_SECOND)
        received = [(await within(anext(subscription))).topic for _ in topics]
    assert received == topics
    assert gaps == []


@pytest.mark.parametrize("target", ["channel", "queue"])
async def test_large_message_to_a_channel_or_queue_comes_over_a_slow_link(
    proxy: Proxy, behind: MessageLayer, layer: MessageLayer, target: str
) -> None:
    name = await behind.new_channel() if target == "channel" else "jobs"
    proxy.slow(BYTES_PER_SECOND)
    await layer.send(name, b"x" * LARGE)
    await layer.send(name, b"behind it")
    assert [len(await within(behind.receive(name))) for _ in range(2)] == [LARGE, 9]


async def test_large_message_is_sent_over_a_slow_link(proxy: Proxy, behind: MessageLayer, layer: MessageLayer) -> None:
    async with layer.subscribe("room") as subscription:
        proxy.slow(BYTES_PER_SECOND)
        await within(behind.publish("room", b"x" * LARGE))
        await within(behind.publish("room", b"behind it"))
        assert [len((await within(anext(subscription))).payload) for _ in range(2)] == [LARGE, 9]


async def test_position_is_resumed_from_over_a_slow_link(
    proxy: Proxy, behind: MessageLayer, layer: MessageLayer
) -> None:
    since = await layer.publish("room", "before")
    sizes = [LARGE // 4] * 4
    for size in sizes:
        await layer.publish("room", b"x" * size)
    proxy.slow(BYTES_PER_SECOND)
    gaps: list[Gap] = []
    async with behind.subscribe("room", since=since, on_gap=gaps.append) as subscription:
        assert [len((await within(anext(subscription))).payload) for _ in sizes] == sizes
    assert gaps == []
