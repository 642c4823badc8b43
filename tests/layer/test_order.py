"""What comes in which order to a receiver of several topics, and from when on."""

import asyncio
from typing import Any

import asyncpg
import pytest

from pgchannels import ConfigurationError, MessageLayer
from pgchannels.codec.commands import Join, Leave
from pgchannels.names import node_address
from tests.support.roads import node_of
from tests.support.waiting import steps, until, within

TOPICS = [f"topic-{number}" for number in range(6)]


async def test_messages_of_many_batches_come_in_the_order_of_each_sender_whatever_their_topics_and_sizes(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    senders, rounds = 4, 120
    async with other_layer.subscribe(*TOPICS, capacity=100_000) as subscription:

        async def send(sender: int) -> None:
            for first in range(0, rounds * len(TOPICS), len(TOPICS)):
                batch = [
                    (topic, [sender, first + place, "x" * (8_000 if (first + place) % 10 == 0 else 0)])
                    for place, topic in enumerate(TOPICS)
                ]
                await layer.publish_many(batch)

        sending = asyncio.gather(*map(send, range(senders)))
        received: dict[int, list[int]] = {sender: [] for sender in range(senders)}
        for _ in range(senders * rounds * len(TOPICS)):
            sender, number, _ = (await within(anext(subscription))).payload
            received[sender].append(number)
        await sending
    assert all(numbers == list(range(rounds * len(TOPICS))) for numbers in received.values())


async def test_new_subscriber_of_a_topic_that_its_node_receives_gets_nothing_from_before(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    async with layer.subscribe("room") as first:
        for number in range(50):
            await other_layer.publish("room", [number, "before"])
            async with layer.subscribe("room") as new:
                await other_layer.publish("room", [number, "after"])
                assert (await within(anext(new))).payload == [number, "after"]
        received = [(await within(anext(first))).payload for _ in range(100)]
        assert received == [[number, when] for number in range(50) for when in ("before", "after")]


async def test_node_whose_subscriptions_were_removed_hosts_them_again(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", other_layer: MessageLayer
) -> None:
    async with MessageLayer(database_url, heartbeat=3600) as layer, layer.subscribe("room") as subscription:
        await connection.execute("DELETE FROM pgchannels.subscription")
        await other_layer.publish("room", "missed")
        node_of(layer).beat_now()
        assert (await within(anext(subscription))).payload == "missed"


@pytest.mark.parametrize(
    "address", ["topic", "topic:", "a:b", "", "topic:other:room", "topic:asgi:", "topic:asgi:\n", "x" * 9_000]
)
async def test_command_with_an_impossible_address_is_ignored(
    layer: MessageLayer, other_layer: MessageLayer, address: str
) -> None:
    channel = await layer.new_channel()
    node = node_address("asgi", node_of(layer).identity.name)
    for command in (Join(address, channel), Leave(address, channel), Join("topic:asgi:room", address)):
        await node_of(other_layer).sender._command(node, command)
    await other_layer.send(channel, "after")
    assert await within(layer.receive(channel)) == "after"
    assert node_of(layer).receiver.payloads.unreadable >= 1


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "294276-01-01", "4713-01-01 BC"])
async def test_row_with_an_impossible_time_is_read(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]", moment: str
) -> None:
    since = await layer.publish("room", "before")
    await layer.publish("room", "odd")
    await connection.execute(f"UPDATE pgchannels.message SET published_at = '{moment}' WHERE id > {since.to_id()}")
    async with layer.subscribe("room", since=since) as subscription:
        message = await within(anext(subscription))
    assert message.payload == "odd"
    assert 1970 <= message.published_at.year <= 9999
    await layer.send("jobs", "odd")
    await connection.execute(f"UPDATE pgchannels.message SET published_at = '{moment}' WHERE number IS NOT NULL")
    assert await within(layer.receive("jobs")) == "odd"


@pytest.mark.parametrize("since", [5, 1.5, b"1-0", (1, 0), "1024-0", "0-9007199254740992"])
async def test_since_that_is_no_position_is_refused(layer: MessageLayer, since: Any) -> None:
    with pytest.raises(ConfigurationError, match="since="):
        layer.subscribe("room", since=since)


async def test_several_tasks_share_what_a_subscription_missed(layer: MessageLayer) -> None:
    since = await layer.publish("room", -1)
    await layer.publish_many([("room", number) for number in range(300)])
    received: list[int] = []

    async def receive() -> None:
        async for message in subscription:
            received.append(message.payload)  # noqa: PERF401 -- looked at meanwhile

    async with layer.subscribe("room", since=since) as subscription:
        receiving = [asyncio.create_task(receive()) for _ in range(3)]
        await until(lambda: asyncio.sleep(0, len(received) == 300))
        await layer.publish_many([("room", number) for number in range(300, 310)])
        await until(lambda: asyncio.sleep(0, len(received) == 310))
        for task in receiving:
            task.cancel()
        await asyncio.wait(receiving)
    assert sorted(received) == list(range(310))


async def test_subscriptions_of_one_topic_that_begin_at_the_same_time_all_begin(layer: MessageLayer) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(60):
            tasks.create_task(within(_enter_later(layer, number)))


async def _enter_later(layer: MessageLayer, turns: int) -> None:
    await steps(turns)
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", turns)
        while (await anext(subscription)).payload != turns:
            pass
