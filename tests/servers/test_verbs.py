"""Each verb over two servers."""

import asyncio
from datetime import UTC, datetime, timedelta

from pgchannels import MessageLayer, Position
from tests.servers.topics import ON_A, ON_B
from tests.support.waiting import within


async def test_subscription_receives_from_both_servers(layer: MessageLayer, other: MessageLayer) -> None:
    async with layer.subscribe(ON_A, ON_B) as subscription:
        sent = [await other.publish(topic, number) for number in range(3) for topic in (ON_A, ON_B)]
        received = [await within(anext(subscription)) for _ in sent]
    for topic, server in ((ON_A, "a"), (ON_B, "b")):
        of_topic = [message for message in received if message.topic == topic]
        assert [message.payload for message in of_topic] == [0, 1, 2]
        assert [message.position for message in of_topic] == [at for at in sent if at.server == server]


async def test_batch_is_split_and_its_positions_come_in_its_order(layer: MessageLayer) -> None:
    async with layer.subscribe(ON_A, ON_B) as subscription:
        sent = await layer.publish_many([(topic, number) for number in range(5) for topic in (ON_A, ON_B)])
        received = [await within(anext(subscription)) for _ in sent]
    assert [at.server for at in sent] == ["a", "b"] * 5
    assert {(message.topic, message.payload): message.position for message in received} == {
        (topic, number): sent[2 * number + place] for number in range(5) for place, topic in enumerate((ON_A, ON_B))
    }


async def test_subscription_resumes_from_its_position_on_both(layer: MessageLayer) -> None:
    async with layer.subscribe(ON_A, ON_B) as subscription:
        await layer.publish(ON_A, 1)
        await layer.publish(ON_B, 1)
        for _ in range(2):
            await within(anext(subscription))
        text = str(subscription.position)
    await layer.publish_many([(topic, number) for number in range(2, 1200) for topic in (ON_A, ON_B)])
    async with layer.subscribe(ON_A, ON_B, since=text) as subscription:
        received = [await within(anext(subscription)) for _ in range(2 * 1198)]
        await layer.publish(ON_A, "live")
        await layer.publish(ON_B, "live")
        received += [await within(anext(subscription)) for _ in range(2)]
    for topic in (ON_A, ON_B):
        of_topic = [message.payload for message in received if message.topic == topic]
        assert of_topic == [*range(2, 1200), "live"]


async def test_what_is_live_comes_behind_what_is_replayed(layer: MessageLayer) -> None:
    async with layer.subscribe(ON_A, ON_B) as subscription:
        since = subscription.position
    await layer.publish_many([(topic, number) for number in range(50) for topic in (ON_A, ON_B)])
    async with layer.subscribe(ON_A, ON_B, since=since) as subscription:
        received = [await within(anext(subscription)) for _ in range(60)]  # some of each: both are caught up
        await layer.publish_many([(ON_A, 50), (ON_B, 50)])
        await layer.send("jobs", "behind them")
        assert await within(layer.receive("jobs")) == "behind them"
        received += [await within(anext(subscription)) for _ in range(42)]
    for topic in (ON_A, ON_B):
        assert [message.payload for message in received if message.topic == topic] == list(range(51))


async def test_history_and_position(layer: MessageLayer) -> None:
    sent = [await layer.publish(ON_B, number) for number in range(5)]
    assert [message.payload for message in await layer.history(ON_B)] == [0, 1, 2, 3, 4]
    assert [message.payload for message in await layer.history(ON_B, since=sent[2])] == [3, 4]
    assert [message.payload for message in await layer.history(ON_B, since=str(sent[2]), until=sent[3])] == [3]
    assert [message.payload for message in await layer.history(ON_B, limit=2)] == [3, 4]
    assert [message.position for message in await layer.history(ON_B, limit=1)] == [sent[4]]
    assert (await layer.position(ON_B)).server == "b"
    assert await layer.position(ON_B) >= sent[4]
    ago = timedelta(minutes=1)
    assert len(await layer.history(ON_B, since=ago)) == 5
    async with layer.subscribe(ON_A, ON_B, since=datetime.now(UTC) - ago) as subscription:
        assert [(await within(anext(subscription))).payload for _ in range(5)] == [0, 1, 2, 3, 4]


async def test_channels_receive_whatever_server_a_message_comes_from(layer: MessageLayer, other: MessageLayer) -> None:
    for _ in range(20):  # whichever server carries it
        channel = await layer.new_channel()
        await layer.send(channel, "from here")
        await other.send(channel, "from there")
        assert [await within(layer.receive(channel)) for _ in range(2)] == ["from here", "from there"]


async def test_queue_goes_to_one_of_its_receivers(layer: MessageLayer, other: MessageLayer) -> None:
    for queue in (f"jobs.{number}" for number in range(10)):
        for number in range(4):
            await layer.send(queue, number)
        received = [await within(one.receive(queue)) for one in (layer, other, layer, other)]
        assert received == [0, 1, 2, 3]
    waiting = asyncio.ensure_future(other.receive("jobs.0"))
    await layer.send("jobs.0", "later")
    assert await within(waiting) == "later"


async def test_threads_without_a_loop_send_to_both(layer: MessageLayer) -> None:
    def send() -> list[Position]:
        layer.sync.send("jobs", 1)
        return [layer.sync.publish(ON_A, 1), *layer.sync.publish_many([(ON_B, 2), (ON_A, 2)])]

    async with layer.subscribe(ON_A, ON_B) as subscription:
        sent = await asyncio.to_thread(send)
        received = [await within(anext(subscription)) for _ in range(3)]
    assert sorted(map(str, sent)) == sorted(str(message.position) for message in received)
    assert await within(layer.receive("jobs")) == 1
    layer.sync.close()
