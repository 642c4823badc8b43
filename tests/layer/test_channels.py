"""Channels of one node, and work queues."""

import asyncio
import re
import sys

import pytest

from pgchannels import LayerClosed, MessageLayer
from pgchannels.receiving.arrival import Arrival
from tests.support.roads import node_of
from tests.support.waiting import steps, within


async def test_channel_receives_what_any_node_sends(layer: MessageLayer, other_layer: MessageLayer) -> None:
    channel = await layer.new_channel()
    for payload in ({"n": 1}, b"x" * 100_000, None):
        await other_layer.send(channel, payload)
    assert [await within(layer.receive(channel)) for _ in range(3)] == [{"n": 1}, b"x" * 100_000, None]


async def test_only_the_owner_of_a_channel_can_receive_from_it(layer: MessageLayer, other_layer: MessageLayer) -> None:
    channel = await layer.new_channel("mine")
    assert channel.startswith("mine.")
    with pytest.raises(LayerClosed, match="another event loop or process"):
        await other_layer.receive(channel)


async def test_channels_of_a_node_do_not_mix(layer: MessageLayer) -> None:
    one, two = await layer.new_channel(), await layer.new_channel()
    await layer.send(one, 1)
    await layer.send(two, 2)
    assert await within(layer.receive(two)) == 2
    assert await within(layer.receive(one)) == 1


async def test_queue_gives_each_message_to_one_receiver(layer: MessageLayer, other_layer: MessageLayer) -> None:
    received: list[int] = []

    async def work(layer: MessageLayer) -> None:
        while True:
            received.append(await layer.receive("jobs"))
            if len(received) == 200:
                finished.set()

    finished = asyncio.Event()
    workers = [asyncio.create_task(work(node)) for node in (layer, layer, other_layer, other_layer)]
    await asyncio.gather(*[layer.send("jobs", number) for number in range(200)])
    await within(finished.wait())
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    assert sorted(received) == list(range(200))


async def test_queue_keeps_messages_until_somebody_receives(layer: MessageLayer, other_layer: MessageLayer) -> None:
    for number in range(3):
        await layer.send("jobs", number)
    assert [await within(other_layer.receive("jobs")) for _ in range(3)] == [0, 1, 2]


async def test_waiting_receiver_of_a_queue_is_woken(layer: MessageLayer, other_layer: MessageLayer) -> None:
    receiving = asyncio.create_task(other_layer.receive("jobs"))
    await layer.send("other", 0)
    await layer.send("jobs", 1)
    assert await within(receiving) == 1


async def test_cancelled_receive_from_a_queue_loses_nothing(layer: MessageLayer) -> None:
    received = []
    for number in range(30):
        receiving = asyncio.create_task(layer.receive("jobs"))
        sending = asyncio.create_task(layer.send("jobs", number))
        for _ in range(number):
            await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving, sending])
        if not receiving.cancelled():
            received.append(receiving.result())
    received += [await within(layer.receive("jobs")) for _ in range(30 - len(received))]
    assert sorted(received) == list(range(30))


async def test_what_a_closing_node_claimed_goes_to_another(database_url: str, layer: MessageLayer) -> None:
    closing = MessageLayer(database_url)
    await closing.open()
    receiving = [asyncio.create_task(closing.receive("jobs")) for _ in range(20)]
    await asyncio.gather(*[layer.send("jobs", number) for number in range(20)])
    for task in receiving:
        task.cancel()
    await asyncio.wait(receiving)
    received = [task.result() for task in receiving if not task.cancelled()]
    await closing.close()
    received += [await within(layer.receive("jobs")) for _ in range(20 - len(received))]
    assert sorted(received) == list(range(20))


async def test_capacity_may_be_as_great_as_any_number(database_url: str) -> None:
    capacities: dict[str | re.Pattern[str], int] = {"many": 2**40}
    async with MessageLayer(database_url, capacity=sys.maxsize, channel_capacity=capacities) as layer:
        channel = await layer.new_channel()
        for name in ("jobs", "many", channel):
            await layer.send(name, 1)
            assert await within(layer.receive(name)) == 1


async def test_queues_do_not_hear_topics_of_the_same_name(layer: MessageLayer) -> None:
    await layer.publish("jobs", "topic")
    await layer.send("jobs", "queue")
    async with layer.subscribe("jobs") as subscription:
        assert await within(layer.receive("jobs")) == "queue"
        await layer.publish("jobs", "topic again")
        assert (await within(anext(subscription))).payload == "topic again"


async def test_encrypted_channels_and_queues(database_url: str) -> None:
    async with MessageLayer(database_url, symmetric_encryption_keys=["secret"]) as layer:
        channel = await layer.new_channel()
        await layer.send(channel, 1)
        await layer.send("jobs", 2)
        assert await within(layer.receive(channel)) == 1
        assert await within(layer.receive("jobs")) == 2


@pytest.mark.parametrize("kind", ["channel", "queue"])
async def test_tasks_that_receive_from_one_channel_share_its_messages_in_the_order_of_their_waiting(
    layer: MessageLayer, other_layer: MessageLayer, kind: str
) -> None:
    channel = await layer.new_channel() if kind == "channel" else "jobs"
    received: list[tuple[int, object]] = []

    async def receive_all(task: int) -> None:
        while True:
            received.append((task, await layer.receive(channel)))
            progress.set()

    progress = asyncio.Event()
    tasks = [asyncio.create_task(receive_all(task)) for task in range(3)]
    await steps(1)
    for number in range(30):
        progress.clear()
        await other_layer.send(channel, number)
        await within(progress.wait())
        await steps(2)
    await layer.close()
    ends = await within(asyncio.gather(*tasks, return_exceptions=True))
    assert received == [(number % 3, number) for number in range(30)]
    assert [type(end) for end in ends] == [LayerClosed] * 3
    assert len(set(map(id, ends))) == 3


async def test_receiver_that_is_woken_in_the_moment_of_a_flush_receives_what_comes_next(
    layer: MessageLayer,
) -> None:
    channel, channels = await layer.new_channel(), node_of(layer).receiver.channels
    receiving = asyncio.create_task(layer.receive(channel))
    await steps(1)
    channels.accept(channel, Arrival(1, 1, "node:asgi:node", channel, b"flushed before it is received"))
    channels.clear()
    list(channels.look_after())
    await steps(3)
    await layer.send(channel, "after")
    assert await within(receiving) == "after"


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_receiver_that_is_woken_in_the_moment_of_closing_comes_to_an_end(
    database_url: str, is_flushed: bool
) -> None:
    layer = MessageLayer(database_url)
    await layer.open()
    channel, channels = await layer.new_channel(), node_of(layer).receiver.channels
    receiving = [asyncio.create_task(layer.receive(channel, on_gap=lambda _: None)) for _ in range(3)]
    await steps(1)
    channels.accept(channel, Arrival(1, 1, "node:asgi:node", channel, b"no message that could be read"))
    if is_flushed:
        channels.clear()
        list(channels.look_after())
    await layer.close()
    for task in receiving:
        with pytest.raises(LayerClosed):
            await within(task)
