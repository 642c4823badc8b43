"""Topics, in one process."""

import asyncio
import enum
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from pgchannels import (
    DatabaseRefused,
    Gap,
    GapReason,
    LayerClosed,
    Message,
    MessageLayer,
    MessagesLost,
    Position,
    Subscription,
)
from pgchannels.database.tables import LARGEST_BATCH
from pgchannels.django import PostgresChannelLayer
from pgchannels.errors import ConfigurationError, PgChannelsError
from tests.support.roads import node_of
from tests.support.waiting import steps, until, within


async def receive(subscription: Subscription, count: int) -> list[Message]:
    """The next messages of a subscription."""
    return [await within(anext(subscription)) for _ in range(count)]


async def test_every_subscriber_of_a_topic_gets_a_message(layer: MessageLayer, other_layer: MessageLayer) -> None:
    async with layer.subscribe("room") as one, layer.subscribe("room") as two, other_layer.subscribe("room") as three:
        position = await layer.publish("room", {"text": "hi"})
        for subscription in (one, two, three):
            [message] = await receive(subscription, 1)
            assert (message.topic, message.payload, message.position) == ("room", {"text": "hi"}, position)
            assert datetime.now(UTC) - message.published_at < timedelta(minutes=1)


async def test_receivers_cannot_change_what_others_receive(layer: MessageLayer) -> None:
    async with layer.subscribe("room") as one, layer.subscribe("room") as two:
        await layer.publish("room", {"list": [1]})
        (await receive(one, 1))[0].payload["list"].append(2)
        assert (await receive(two, 1))[0].payload == {"list": [1]}


async def test_subscriber_gets_its_topics_alone_and_in_order(layer: MessageLayer) -> None:
    async with layer.subscribe("news", "sport") as subscription:
        await layer.publish_many([("news", 1), ("weather", 2), ("sport", 3), ("news", 4)])
        messages = await receive(subscription, 3)
    assert [(message.topic, message.payload) for message in messages] == [("news", 1), ("sport", 3), ("news", 4)]
    assert [message.position for message in messages] == sorted(message.position for message in messages)


async def test_message_published_before_subscribing_is_not_received(layer: MessageLayer) -> None:
    await layer.publish("room", "before")
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", "after")
        assert [message.payload for message in await receive(subscription, 1)] == ["after"]


async def test_unsubscribed_topic_is_received_again_after_subscribing_again(layer: MessageLayer) -> None:
    async with layer.subscribe("room"):
        pass
    await layer.publish("room", "meanwhile")
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", "after")
        payloads = [message.payload for message in await receive(subscription, 1)]
    # Until the next heartbeat the node still hosts the topic: then what is on its way may come as well.
    assert payloads[-1] in {"meanwhile", "after"}


@pytest.mark.parametrize("size", [0, 1, 5_800, 5_990, 6_010, 8_000, 1_000_000])
async def test_message_of_any_size_keeps_its_place(layer: MessageLayer, other_layer: MessageLayer, size: int) -> None:
    async with other_layer.subscribe("room") as subscription:
        for payload in ("before", b"x" * size, "after"):
            await layer.publish("room", payload)
        assert [m.payload for m in await receive(subscription, 3)] == ["before", b"x" * size, "after"]


async def test_message_of_5_megabytes_between_small_ones_keeps_its_place(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    payloads = [1, 2, b"x" * 5_000_000, 3, b"y" * 5_000_000, 4]
    async with other_layer.subscribe("room") as subscription:
        await layer.publish_many([("room", payload) for payload in payloads])
        assert [message.payload for message in await receive(subscription, 6)] == payloads


async def test_concurrent_publishers_get_growing_positions_in_order_of_receipt(layer: MessageLayer) -> None:
    async with layer.subscribe("room") as subscription:
        positions = await asyncio.gather(*[layer.publish("room", number) for number in range(300)])
        messages = await receive(subscription, 300)
    assert [message.payload for message in messages] == list(range(300))
    assert [message.position for message in messages] == positions == sorted(positions)


async def test_cancelled_receive_loses_nothing(layer: MessageLayer) -> None:
    received = []
    async with layer.subscribe("room") as subscription:
        for number in range(50):
            receiving = asyncio.ensure_future(anext(subscription))
            publishing = asyncio.create_task(layer.publish("room", number))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            receiving.cancel()
            await asyncio.wait([receiving, publishing])
            if not receiving.cancelled():
                received.append(receiving.result().payload)
        received += [message.payload for message in await receive(subscription, 50 - len(received))]
    assert received == list(range(50))


async def test_cancelled_publish_is_delivered_all_the_same(layer: MessageLayer) -> None:
    async with layer.subscribe("room") as subscription:
        publishing = asyncio.create_task(layer.publish("room", "cancelled"))
        await asyncio.sleep(0)
        publishing.cancel()
        await layer.publish("room", "next")
        assert [message.payload for message in await receive(subscription, 2)] == ["cancelled", "next"]


async def test_since_replays_what_the_log_has_and_goes_on_live(layer: MessageLayer) -> None:
    positions = await layer.publish_many([("room", number) for number in range(250)])
    async with layer.subscribe("room", since=str(positions[9])) as subscription:
        await layer.publish("room", "live")
        messages = await receive(subscription, 241)
    assert [message.payload for message in messages] == [*range(10, 250), "live"]


async def test_since_on_a_topic_that_is_hosted_already_gives_each_message_once(layer: MessageLayer) -> None:
    async with layer.subscribe("room"):
        first = await layer.publish("room", 0)
        publishing = asyncio.gather(*[layer.publish("room", number) for number in range(1, 200)])
        async with layer.subscribe("room", since=first) as subscription:
            await publishing
            assert [message.payload for message in await receive(subscription, 199)] == list(range(1, 200))


async def test_history_is_oldest_first(layer: MessageLayer) -> None:
    positions = await layer.publish_many([("room", number) for number in range(10)])
    assert [message.payload for message in await layer.history("room", limit=3)] == [7, 8, 9]
    assert [message.payload for message in await layer.history("room", since=positions[4], limit=3)] == [5, 6, 7]


async def test_publish_of_many_that_fails_on_the_way_says_that_some_were_sent(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("ALTER TABLE pgchannels.message ADD CHECK (address <> 'topic:asgi:refused')")
    more_than_a_batch = [("room", number) for number in range(LARGEST_BATCH)]
    with pytest.raises(DatabaseRefused, match="512 of 514 messages were sent") as raised:
        await layer.publish_many([*more_than_a_batch, ("refused", 1), ("room", 2)])
    assert raised.value.may_have_been_sent
    assert len(await layer.history("room", limit=1000)) == LARGEST_BATCH
    with pytest.raises(DatabaseRefused) as raised:
        await layer.publish_many([("room", 1), ("refused", 2)])
    assert not raised.value.may_have_been_sent


async def test_slow_subscriber_is_told_what_it_lost(layer: MessageLayer) -> None:
    async with layer.subscribe("room", capacity=3) as slow, layer.subscribe("room") as quick:
        await layer.publish_many([("room", number) for number in range(5)])
        await receive(quick, 5)
        assert [message.payload for message in await receive(slow, 3)] == [0, 1, 2]
        with pytest.raises(MessagesLost, match="capacity=3") as caught:
            await anext(slow)
        assert caught.value.count == slow.lost == 2


@pytest.mark.parametrize(("when_full", "kept"), [("drop_newest", [0, 1, 2]), ("drop_oldest", [2, 3, 4])])
async def test_slow_subscriber_can_choose_what_to_lose(layer: MessageLayer, when_full: str, kept: list[int]) -> None:
    async with (
        layer.subscribe("room", capacity=3, when_full=when_full) as slow,  # type: ignore[arg-type]
        layer.subscribe("room") as quick,
    ):
        await layer.publish_many([("room", number) for number in range(5)])
        await receive(quick, 5)
        assert [message.payload for message in await receive(slow, 3)] == kept
        assert slow.lost == 2


async def test_loop_that_goes_on_after_its_subscription_was_too_slow_lets_other_tasks_run(layer: MessageLayer) -> None:
    async with layer.subscribe("room", capacity=1) as slow, layer.subscribe("room") as quick:
        await layer.publish_many([("room", number) for number in range(3)])
        await receive(quick, 3)
        await receive(slow, 1)
        raised = await errors_of_a_loop_that_goes_on(lambda: anext(slow))
    assert {(type(error), getattr(error, "count", None)) for error in raised} == {(MessagesLost, 2)}


async def test_loop_that_goes_on_after_its_layer_is_closed_lets_other_tasks_run(database_url: str) -> None:
    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        channel = await layer.new_channel()
        await layer.close()
        for again in (False, True):
            if again:
                await layer.open()
            for receive_on in (lambda: anext(subscription), lambda: layer.receive(channel)):
                raised = await errors_of_a_loop_that_goes_on(receive_on)
                assert all(isinstance(error, LayerClosed) for error in raised)


async def errors_of_a_loop_that_goes_on(receive: Callable[[], Awaitable[object]]) -> list[BaseException]:
    """Receive again and again, whatever is raised, until another task has run ten times; returns what was raised."""
    ticking = asyncio.create_task(steps(10))
    raised: list[BaseException] = []
    while not ticking.done():
        with pytest.raises(PgChannelsError) as caught:
            await receive()
        raised.append(caught.value)
        assert len(raised) < 1000, "other tasks do not run"
    assert len(set(map(id, raised))) == len(raised)
    return raised


async def test_tasks_that_iterate_one_subscription_share_its_messages_in_the_order_of_their_waiting(
    layer: MessageLayer,
) -> None:
    received: list[tuple[int, object]] = []

    async def iterate(task: int) -> None:
        while True:
            received.append((task, (await anext(subscription)).payload))

    async with layer.subscribe("room") as subscription, layer.subscribe("room") as other:
        tasks = [asyncio.create_task(iterate(task)) for task in range(3)]
        for number in range(30):
            await layer.publish("room", number)
            await receive(other, 1)
            await steps(2)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert received == [(number % 3, number) for number in range(30)]
    assert [type(end) for end in ends] == [LayerClosed] * 3
    assert len(set(map(id, ends))) == 3


@pytest.mark.parametrize("capacity", [0, -1, "3", 1.5])
async def test_capacity_for_no_message_is_refused(layer: MessageLayer, capacity: Any) -> None:
    with pytest.raises(ConfigurationError, match="capacity must be a number of messages from 1 on"):
        layer.subscribe("room", capacity=capacity)


async def test_subscription_is_received_from_in_its_own_loop_alone(layer: MessageLayer) -> None:
    async def receive_once() -> None:
        await within(anext(subscription))

    async with layer.subscribe("room") as subscription:
        with pytest.raises(LayerClosed, match="event loop in which it was entered"):
            await asyncio.to_thread(asyncio.run, receive_once())
        await layer.publish("room", "here")
        assert [message.payload for message in await receive(subscription, 1)] == ["here"]


async def test_encrypted_messages_are_read_with_the_keys_alone(database_url: str) -> None:
    old, new = "the old key", "the new key"
    gaps: list[Gap] = []
    strangers_gaps: list[Gap] = []
    async with (
        MessageLayer(database_url, symmetric_encryption_keys=[new, old]) as both,
        MessageLayer(database_url, symmetric_encryption_keys=[old]) as before,
        MessageLayer(database_url) as stranger,
        both.subscribe("room", on_gap=gaps.append) as subscription,
        stranger.subscribe("room", on_gap=strangers_gaps.append) as reading_stranger,
    ):
        await stranger.publish("room", "forged")
        await before.publish("room", "sealed with the old key")
        await both.publish("room", b"sealed with the new key" * 1000)
        await stranger.publish("room", "plain")
        payloads = [message.payload for message in await receive(subscription, 2)]
        assert payloads == ["sealed with the old key", b"sealed with the new key" * 1000]
        assert [message.payload for message in await receive(reading_stranger, 2)] == ["forged", "plain"]
    assert gaps == [Gap(GapReason.UNREADABLE, 1)]
    assert strangers_gaps == [Gap(GapReason.UNREADABLE, 1)] * 2


async def test_prefixes_do_not_hear_each_other(database_url: str) -> None:
    async with (
        MessageLayer(database_url, prefix="one") as one,
        MessageLayer(database_url, prefix="two") as two,
        one.subscribe("room") as subscription,
    ):
        await two.publish("room", 2)
        await one.publish("room", 1)
        assert [message.payload for message in await receive(subscription, 1)] == [1]


async def test_closing_ends_every_wait(database_url: str) -> None:
    layer = MessageLayer(database_url)
    await layer.open()
    async with layer.subscribe("room") as subscription:
        waits = [
            asyncio.ensure_future(anext(subscription)),
            asyncio.ensure_future(layer.receive(await layer.new_channel())),
            asyncio.ensure_future(layer.receive("queue")),
        ]
        await asyncio.sleep(0)
        await within(layer.close())
        for wait in waits:
            with pytest.raises(LayerClosed):
                await within(wait)


async def test_closing_sends_what_waits(database_url: str, other_layer: MessageLayer) -> None:
    layer = MessageLayer(database_url)
    await layer.open()
    async with other_layer.subscribe("room") as subscription:
        publishing = [asyncio.create_task(layer.publish("room", number)) for number in range(100)]
        await asyncio.sleep(0)
        await layer.close()
        await asyncio.gather(*publishing)
        assert [message.payload for message in await receive(subscription, 100)] == list(range(100))


async def test_closed_layer_can_be_opened_again(database_url: str) -> None:
    layer = MessageLayer(database_url)
    for _ in range(2):
        async with layer, layer.subscribe("room") as subscription:
            await layer.publish("room", 1)
            await receive(subscription, 1)


async def test_receiving_needs_an_open_layer(database_url: str) -> None:
    layer = MessageLayer(database_url)
    with pytest.raises(LayerClosed, match="async with layer"):
        await layer.new_channel()
    with pytest.raises(LayerClosed, match="async with layer"):
        async with layer.subscribe("room"):
            pass
    with pytest.raises(ConfigurationError):
        layer.subscribe()


async def test_position_can_be_printed_and_read_back(layer: MessageLayer) -> None:
    one, two = await layer.publish("room", 1), await layer.publish("room", 2)
    assert one < two
    assert Position.parse(str(one)) == one
    with pytest.raises(ValueError, match="not a position"):
        Position.parse("1-x")


async def test_history_after_a_position_of_another_log_is_all_that_there_is(layer: MessageLayer) -> None:
    position = await layer.publish("room", 1)
    for since in (Position(position.epoch + 1, 0), Position(position.epoch, position.offset + 10**9), "0-1"):
        assert [message.payload for message in await layer.history("room", since=since)] == [1]
    assert await layer.history("room", since=position) == []


class Room(str, enum.Enum):  # noqa: UP042 (as applications write it; it formats as `Room.LOBBY`)
    """Names as a path of FastAPI has them."""

    LOBBY = "lobby"
    JOBS = "jobs"
    SHOP = "shop"
    PGCHANNELS = "pgchannels"


async def test_names_may_be_of_an_enumeration(database_url: str) -> None:
    async with (
        MessageLayer(database_url, prefix="shop") as plain,
        MessageLayer(database_url, prefix=Room.SHOP, schema=Room.PGCHANNELS) as layer,
        plain.subscribe("lobby") as subscription,
        layer.subscribe(Room.LOBBY) as other,
    ):
        await layer.publish(Room.LOBBY, 1)
        await layer.publish_many([(Room.LOBBY, 2)])
        assert [(await within(anext(subscription))).payload for _ in range(2)] == [1, 2]
        assert (await within(anext(other))).topic == "lobby"
        assert [message.payload for message in await layer.history(Room.LOBBY)] == [1, 2]
        await layer.send(Room.JOBS, 3)
        assert await within(plain.receive("jobs")) == 3
        await plain.send("jobs", 4)
        assert await within(layer.receive(Room.JOBS)) == 4


async def test_groups_may_be_of_an_enumeration(database_url: str) -> None:
    layer = PostgresChannelLayer(database_url)
    channel = await layer.new_channel()
    await layer.group_add(Room.LOBBY, channel)
    await layer.group_send("lobby", {"type": "first"})
    await layer.group_send(Room.LOBBY, {"type": "second"})
    assert [(await within(layer.receive(channel)))["type"] for _ in range(2)] == ["first", "second"]
    await layer.group_discard(Room.LOBBY, channel)
    await until(lambda: asyncio.sleep(0, not node_of(layer).receiver.channels._topics))
    await layer.close()
