"""Subscriptions to several topics that leave and come back."""

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgchannels import Gap, InvalidPosition, LayerClosed, MessageLayer, MessagesLost, Position, Positions, Subscription
from pgchannels.codec import Codec
from tests.support.log import let_pass, rotate, rotate_everything_away
from tests.support.roads import deliver
from tests.support.waiting import until, within

TOPICS = ("news", "sport", "weather")


async def take(subscription: Subscription, count: int) -> list[tuple[str, Any]]:
    """Topic and payload of the next messages."""
    return [(message.topic, message.payload) for message in [await within(anext(subscription)) for _ in range(count)]]


async def test_topic_whose_message_commits_behind_a_greater_position_of_another_topic_loses_nothing(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await layer.publish_many([("news", 0), ("sport", 0)])
    async with layer.subscribe("news", "sport") as subscription, connection.transaction():
        await deliver(connection, "topic:asgi:sport", None, [Codec().encode("late", bound_to="topic:asgi:sport")])
        later = await layer.publish("news", "early")
        assert await take(subscription, 1) == [("news", "early")]
        stands = subscription.position
    async with layer.subscribe("news", "sport", since=str(stands)) as subscription:
        assert await take(subscription, 1) == [("sport", "late")]
        assert subscription.position.of("sport") < later == subscription.position.of("news")
        await layer.publish("news", "last")
        assert await take(subscription, 1) == [("news", "last")]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    publishers=st.lists(st.lists(st.sampled_from(TOPICS), min_size=1, max_size=15), min_size=1, max_size=4),
    visits=st.lists(st.integers(0, 12), max_size=6),
)
async def test_subscriber_that_comes_and_goes_gets_each_message_once_and_in_order(
    layer: MessageLayer, other_layer: MessageLayer, publishers: list[list[str]], visits: list[int]
) -> None:
    async def publish(name: int, topics: list[str]) -> None:
        for number, topic in enumerate(topics):
            await (layer, other_layer)[name % 2].publish(topic, [name, number])

    expected = sum(map(len, publishers))
    received: list[tuple[str, Any]] = []
    async with layer.subscribe(*TOPICS) as subscription:
        stands = subscription.position
    async with asyncio.TaskGroup() as tasks:
        for name, topics in enumerate(publishers):
            tasks.create_task(publish(name, topics))
        for count in [*visits, expected]:
            async with layer.subscribe(*TOPICS, since=str(stands)) as subscription:
                received += await take(subscription, min(count, expected - len(received)))
                stands = subscription.position
    assert sorted(payload for _, payload in received) == sorted(
        [name, number] for name, topics in enumerate(publishers) for number in range(len(topics))
    )
    for topic in TOPICS:
        history = await layer.history(topic, limit=expected)
        mine = [payload for of, payload in received if of == topic]
        assert mine == [message.payload for message in history][len(history) - len(mine) :]


async def test_silent_subscription_does_not_fall_out_of_the_log(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1) as layer:
        async with layer.subscribe("room", "news") as subscription:
            last = await layer.publish("room", 1)
            assert await take(subscription, 1) == [("room", 1)]
            await layer.publish("elsewhere", 1)
            await let_pass(connection, 60)
            await rotate(connection)
            await until(lambda: asyncio.sleep(0, subscription.position.least > last))
            stands = str(subscription.position)
        assert "," not in stands
        await rotate_everything_away(connection)
        await layer.publish("news", 2)
        for since in (stands, last):  # nothing of these topics has left the log since
            async with layer.subscribe("room", "news", since=since) as subscription:
                assert await take(subscription, 1) == [("news", 2)]


async def test_position_does_not_run_ahead_of_what_waits(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1) as layer:
        async with layer.subscribe("room", "news") as subscription, layer.subscribe("room") as other:
            begin = subscription.position
            waiting = await layer.publish("room", 1)
            await take(other, 1)
            await let_pass(connection, 60)
            await rotate(connection)
            await until(lambda: asyncio.sleep(0, other.position.least > waiting))
            assert subscription.position == begin
        async with layer.subscribe("room", "news", since=begin) as subscription:
            assert subscription.position == begin
            assert await take(subscription, 1) == [("room", 1)]


async def test_subscription_that_was_too_slow_resumes_at_the_first_message_that_it_had_no_room_for(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1) as layer, layer.subscribe("room") as other:
        async with layer.subscribe("room", capacity=2) as subscription:
            for number in range(4):
                await layer.publish("room", number)
            await take(other, 4)
            assert await take(subscription, 2) == [("room", 0), ("room", 1)]
            with pytest.raises(MessagesLost):
                await within(anext(subscription))
            await move_on(connection, other)
            stands = subscription.position
        async with layer.subscribe("room", since=stands) as subscription:
            assert await take(subscription, 2) == [("room", 2), ("room", 3)]


async def test_position_stays_where_the_subscription_was_left(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1) as layer, layer.subscribe("room") as other:
        async with layer.subscribe("room") as left:
            pass
        await layer.publish("room", "later")
        await take(other, 1)
        await move_on(connection, other)
        async with layer.subscribe("room", since=left.position) as subscription:
            assert await take(subscription, 1) == [("room", "later")]


async def move_on(connection: "asyncpg.Connection[asyncpg.Record]", subscription: Subscription) -> None:
    """Fill a slot of the log, and wait until the node has heard of it."""
    before = subscription.position.least
    await let_pass(connection, 60)
    await rotate(connection)
    await until(lambda: asyncio.sleep(0, subscription.position.least > before))


async def test_position_moves_over_what_cannot_be_read(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gaps: list[Gap] = []
    async with layer.subscribe("room", on_gap=gaps.append) as subscription:
        await deliver(connection, "topic:asgi:room", None, [b"\xff damaged"])
        await layer.publish("room", 1)
        await take(subscription, 1)
        stands = subscription.position
    async with layer.subscribe("room", since=stands, on_gap=gaps.append) as subscription:
        await layer.publish("room", 2)
        assert await take(subscription, 1) == [("room", 2)]
    assert len(gaps) == 1


async def test_subscription_can_be_told_where_to_begin_before_it_is_entered(layer: MessageLayer) -> None:
    first, _ = await layer.publish_many([("room", 1), ("room", 2)])
    subscription = layer.subscribe("room", since=Position(0, 0)).resume(str(first))
    async with subscription:
        assert await take(subscription, 1) == [("room", 2)]
    with pytest.raises(InvalidPosition, match="since='yesterday'"):
        subscription.resume("yesterday")


async def test_subscription_that_was_never_entered_stands_nowhere(layer: MessageLayer) -> None:
    with pytest.raises(LayerClosed, match="enter the subscription first"):
        _ = layer.subscribe("room").position


async def test_position_that_no_message_can_have_is_refused_among_several_too(layer: MessageLayer) -> None:
    for since in (
        Positions(Position(-1, 0)),
        Positions(Position(0, 0), {"room": Position(2000, 0)}),
        "1-1,room",
        ",",
        5,
    ):
        with pytest.raises(InvalidPosition, match=r"^since="):
            layer.subscribe("room", since=since)  # type: ignore[arg-type]


async def test_position_of_another_log_does_not_stay_where_the_subscription_stands(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gaps: list[Gap] = []
    async with MessageLayer(database_url, heartbeat=0.1) as layer:
        last = await layer.publish("room", 0)
        foreign = Position(last.epoch + 5, last.offset)
        async with layer.subscribe("room", "silent", since=foreign, on_gap=gaps.append) as subscription:
            assert await take(subscription, 1) == [("room", 0)]
            assert subscription.position.of("room") == last
            assert subscription.position.of("silent") < foreign
    assert [gap.count for gap in gaps] == [None]


async def test_messages_that_expired_one_after_another_are_one_gap(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gaps: list[Gap] = []
    first, *_ = await layer.publish_many([("room", number) for number in range(300)])
    await connection.execute("UPDATE pgchannels.message SET expires_at = published_at WHERE id <> $1", first.to_id())
    last = await layer.publish("room", "last")
    async with layer.subscribe("room", since=first, on_gap=gaps.append) as subscription:
        assert (await within(anext(subscription))).position == last
    assert [gap.count for gap in gaps] == [299]
