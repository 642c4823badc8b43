"""Real consumers of Channels on the layer."""

import asyncio
from typing import Any

import pytest

from pgchannels import MessageLayer
from pgchannels.django import PostgresChannelLayer
from tests.support.consumers import ChatConsumer, SynchronousChatConsumer
from tests.support.visitors import heard, visitor
from tests.support.waiting import within

CONSUMERS = pytest.mark.parametrize("consumer", [ChatConsumer, SynchronousChatConsumer])


@CONSUMERS
async def test_visitors_of_a_room_hear_each_other(configured_layer: PostgresChannelLayer, consumer: Any) -> None:
    async with visitor(consumer) as one, visitor(consumer) as two:
        for speaker, text in ((one, "hello"), (two, "hi")):
            await speaker.send_json_to(text)
            for listener in (one, two):
                assert await heard(listener) == {"said": text}


@CONSUMERS
async def test_visitor_that_left_disturbs_nobody(configured_layer: PostgresChannelLayer, consumer: Any) -> None:
    async with visitor(consumer) as staying:
        async with visitor(consumer):
            pass
        await staying.send_json_to("alone")
        assert await heard(staying) == {"said": "alone"}


async def test_message_published_without_channels_reaches_a_consumer(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    async with MessageLayer(database_url) as layer, visitor(ChatConsumer) as one:
        await layer.publish("room", {"type": "chat.message", "text": "from elsewhere"})
        assert await heard(one) == {"said": "from elsewhere"}


async def test_what_a_consumer_sends_reaches_a_subscriber_without_channels(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        async with visitor(ChatConsumer) as one:
            await one.send_json_to("hello")
            assert await heard(one) == {"said": "hello"}
        message = await within(anext(subscription))
        assert (message.topic, message.payload) == ("room", {"type": "chat.message", "text": "hello"})


async def test_many_visitors_all_hear_every_message_in_order(configured_layer: PostgresChannelLayer) -> None:
    async with visitor(ChatConsumer) as one, visitor(ChatConsumer) as two, visitor(ChatConsumer) as three:
        for number in range(20):
            await one.send_json_to(number)
        for listener in (one, two, three):
            assert [await heard(listener) for _ in range(20)] == [{"said": number} for number in range(20)]


async def test_visitor_that_left_leaves_no_task_behind(configured_layer: PostgresChannelLayer) -> None:
    async with visitor(ChatConsumer):
        pass
    await configured_layer.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
