"""Sending without an event loop."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pgchannels import InvalidMessage, InvalidName, MessageLayer, SchemaMissing, WouldBlock
from tests.support.waiting import LIMIT_SECONDS, within


async def test_threads_publish_to_subscribers_in_the_order_of_their_calls(layer: MessageLayer) -> None:
    async with layer.subscribe("room") as subscription:
        position = await asyncio.to_thread(layer.sync.publish, "room", 0)
        positions = await asyncio.to_thread(layer.sync.publish_many, [("room", 1), ("room", 2)])
        received = [await within(anext(subscription)) for _ in range(3)]
    assert [message.payload for message in received] == [0, 1, 2]
    assert [message.position for message in received] == [position, *positions]


async def test_threads_send_to_channels_and_queues(layer: MessageLayer) -> None:
    channel = await layer.new_channel()
    for name in (channel, "jobs"):
        await asyncio.to_thread(layer.sync.send, name, "hi")
        assert await within(layer.receive(name)) == "hi"


def test_process_without_an_event_loop_publishes_from_many_threads(database_url: str) -> None:
    layer = MessageLayer(database_url)
    with ThreadPoolExecutor(10) as threads:
        list(threads.map(lambda number: layer.sync.publish("room", number), range(200)))
    layer.sync.close()
    assert sorted(asyncio.run(history(layer))) == list(range(200))


async def history(layer: MessageLayer) -> list[int]:
    """All payloads of the room."""
    async with layer:
        return [message.payload for message in await layer.history("room", limit=1000)]


async def test_call_in_the_thread_of_an_event_loop_says_what_to_do(layer: MessageLayer) -> None:
    with pytest.raises(WouldBlock, match="await the asynchronous one"):
        layer.sync.publish("room", "hi")
    with pytest.raises(WouldBlock):
        layer.sync.send("jobs", "hi")


def test_call_raises_what_the_asynchronous_one_raises(empty_database_url: str) -> None:
    sync = MessageLayer(empty_database_url).sync
    with pytest.raises(InvalidName):
        sync.publish("no topic", "hi")
    with pytest.raises(InvalidName):
        sync.send("no channel", "hi")
    with pytest.raises(SchemaMissing, match="pgchannels upgrade"):
        sync.publish("room", "hi")
    sync.close()


def test_call_refuses_what_no_message_can_carry(database_url: str) -> None:
    layer = MessageLayer(database_url)
    with pytest.raises(InvalidMessage):
        layer.sync.publish_many([("room", object())])
    layer.sync.publish("room", "hi")
    layer.sync.close()


def test_closed_layer_connects_again_when_it_is_used_again(database_url: str) -> None:
    before = set(threading.enumerate())
    layer = MessageLayer(database_url)
    for _ in range(2):
        layer.sync.publish("room", "hi")
        layer.sync.close()
    assert set(threading.enumerate()) <= before


def test_layer_that_is_thrown_away_leaves_no_thread(database_url: str) -> None:
    before = set(threading.enumerate())
    layer = MessageLayer(database_url)
    layer.sync.publish("room", "hi")
    [thread] = set(threading.enumerate()) - before
    del layer
    gc.collect()
    thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()
