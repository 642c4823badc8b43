"""A layer with several servers that polls, in place of LISTEN."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from pgchannels import ConfigurationError, MessageLayer
from tests.servers.topics import ON_A, ON_B, name_on
from tests.support.waiting import within

POLL_SECONDS = 0.05


@pytest.fixture
async def polling(urls: dict[str, str]) -> AsyncIterator[MessageLayer]:
    """An open layer on both servers."""
    async with MessageLayer(urls, poll=POLL_SECONDS) as layer:
        yield layer


async def test_messages_of_each_server_arrive_once_and_in_order(polling: MessageLayer, other: MessageLayer) -> None:
    async with polling.subscribe(ON_A, ON_B) as subscription:
        for number in range(10):
            for topic in (ON_A, ON_B):
                await other.publish(topic, number)
        received = [await within(anext(subscription)) for _ in range(20)]
    for topic in (ON_A, ON_B):
        assert [message.payload for message in received if message.topic == topic] == list(range(10))


async def test_channels_and_queues_receive(polling: MessageLayer, other: MessageLayer) -> None:
    channel = await polling.new_channel()
    await other.send(channel, "to a channel")
    assert await within(polling.receive(channel)) == "to a channel"
    for queue in (name_on(server, of="queue") for server in ("a", "b")):
        await other.send(queue, "to receive")
        assert await within(polling.receive(queue)) == "to receive"
        await other.send(queue, "to claim")
        async with polling.claim(queue) as work:
            assert work.payload == "to claim"


async def test_engine_is_refused_with_a_reason() -> None:
    engine = create_async_engine("postgresql+asyncpg://localhost/a")
    with pytest.raises(ConfigurationError, match=r"poll= goes with a URL"):
        MessageLayer({"a": engine}, poll=POLL_SECONDS)
    await engine.dispose()
