"""What is lost for good is told, and to whom."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable

import asyncpg
import pytest

from pgchannels import Gap, GapReason, MessageLayer, MessagesLost, Position
from tests.support.log import lose_the_log, rotate_everything_away
from tests.support.roads import ROADS, deliver, node_of
from tests.support.waiting import until, within

HEARTBEAT_SECONDS = 0.2


@pytest.fixture
async def listening(database_url: str) -> AsyncIterator[MessageLayer]:
    """A layer that looks at the log often."""
    async with MessageLayer(database_url, heartbeat=HEARTBEAT_SECONDS) as layer:
        yield layer


async def test_subscription_raises_at_the_place_of_a_gap_and_goes_on_behind_it(
    listening: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with listening.subscribe("room") as subscription:
        await listening.publish("room", "before")
        assert (await within(anext(subscription))).payload == "before"
        await lose_the_log(connection)
        with pytest.raises(MessagesLost, match="may have been lost: the database server crashed") as lost:
            await within(anext(subscription))
        await listening.publish("room", "after")
        assert (await within(anext(subscription))).payload == "after"
    assert lost.value.gap == Gap(GapReason.CRASH, None)


async def test_callback_takes_the_gaps_in_place_of_exceptions(
    listening: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    told: list[object] = []
    async with listening.subscribe("room", on_gap=told.append) as subscription:
        receiving = asyncio.create_task(anext(subscription))
        await asyncio.sleep(0)
        await lose_the_log(connection)
        await until(lambda: asyncio.sleep(0, bool(told)))
        await listening.publish("room", "after")
        told.append((await within(receiving)).payload)
    assert told == [Gap(GapReason.CRASH, None), "after"]


async def test_channels_and_queues_are_told_of_a_crash(
    listening: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    receiving = [asyncio.create_task(listening.receive(channel)) for channel in (await listening.new_channel(), "jobs")]
    await until(lambda: hosts(connection, "queue:asgi:jobs"))
    await lose_the_log(connection)
    for task in receiving:
        with pytest.raises(MessagesLost) as lost:
            await within(task)
        assert lost.value.gap == Gap(GapReason.CRASH, None)


async def hosts(connection: "asyncpg.Connection[asyncpg.Record]", address: str) -> bool:
    """Whether some node hosts an address."""
    query = "SELECT EXISTS (SELECT FROM pgchannels.subscription WHERE address = $1)"
    answer: bool = await connection.fetchval(query, address)
    return answer


async def test_what_expired_while_the_node_was_deaf_is_counted_at_its_place(
    database_url: str,
    layer: MessageLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    gaps: list[Gap] = []
    async with (
        MessageLayer(database_url, heartbeat=3600) as deaf,  # which would otherwise notice it too soon
        deaf.subscribe("room", on_gap=gaps.append) as subscription,
    ):
        await connection.execute("DELETE FROM pgchannels.subscription WHERE address = 'topic:asgi:room'")
        await connection.execute("UPDATE pgchannels.node SET version = 0")  # as if another had removed it
        async with MessageLayer(database_url, expiry=0.001) as hasty:
            for number in range(3):
                await hasty.publish("room", number)
        await layer.publish("room", "fresh")
        node_of(deaf).beat_now()
        assert (await within(anext(subscription))).payload == "fresh"
    assert gaps == [Gap(GapReason.EXPIRED, 3)]


async def test_replay_from_a_position_that_has_left_the_log_begins_with_a_gap(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    since = await layer.publish("room", "seen")
    await layer.publish("room", "lost")
    await rotate_everything_away(connection)
    await layer.publish("room", "kept")
    async with layer.subscribe("room", since=since) as subscription:
        with pytest.raises(MessagesLost) as lost:
            await within(anext(subscription))
        assert (await within(anext(subscription))).payload == "kept"
    assert lost.value.gap == Gap(GapReason.EXPIRED, None)


async def test_replay_counts_what_has_expired_at_its_place(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    told: list[object] = []
    since = await layer.publish("room", 0)
    for number in (1, 2, 3):
        await layer.publish("room", number)
    await connection.execute(
        "UPDATE pgchannels.message SET expires_at = now() WHERE id = (SELECT max(id) - 512 FROM pgchannels.message)"
    )
    async with layer.subscribe("room", since=since, on_gap=told.append) as subscription:
        first, second = await within(anext(subscription)), await within(anext(subscription))
    assert [first.payload, *told, second.payload] == [1, Gap(GapReason.EXPIRED, 1), 3]


async def test_replay_from_a_position_of_another_log_is_a_gap_and_nothing_more_is_missed(layer: MessageLayer) -> None:
    await layer.publish("room", "old")
    for since in (Position(9, 512), Position(0, 512)):
        async with layer.subscribe("room", since=since) as subscription:
            with pytest.raises(MessagesLost) as lost:
                await within(anext(subscription))
            assert lost.value.gap == Gap(GapReason.CRASH, None)
            assert (await within(anext(subscription))).payload == "old"
            position = await layer.publish("room", str(since))
            while (message := await within(anext(subscription))).payload != str(since):
                pass
            assert message.position == position


async def test_crash_that_the_node_notices_late_brings_nothing_again_from_before_the_position_of_a_replay(
    layer: MessageLayer, other_layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    told: list[object] = []
    async with layer.subscribe("room", on_gap=lambda _: None):
        await other_layer.publish("room", "gone")
        await lose_the_log(connection)
        since = await other_layer.publish("room", "seen")
        await other_layer.publish("room", "new")
        async with layer.subscribe("room", since=since, on_gap=told.append) as subscription:
            node_of(layer).beat_now()
            told.append((await within(anext(subscription))).payload)
    assert told == ["new"]


async def test_large_message_whose_row_is_gone_is_counted(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    told: list[object] = []
    node, address = await connection.fetchval("SELECT id::text FROM pgchannels.node"), "topic:asgi:room"
    async with layer.subscribe("room", on_gap=told.append) as subscription:
        position = await layer.publish("room", "one")
        told.append((await within(anext(subscription))).payload)
        await connection.execute("SELECT pg_notify($1, $2)", node, f"m 0 {address} {position.to_id() + 1}  ")
        await layer.publish("room", "three")
        told.append((await within(anext(subscription))).payload)
    assert told == ["one", Gap(GapReason.EXPIRED, 1), "three"]


async def test_burst_of_losses_is_one_line_of_the_log_and_every_loss_is_counted(
    layer: MessageLayer, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        layer.subscribe("room", capacity=10, when_full="drop_oldest") as slow,
        layer.subscribe("room", capacity=1_000) as fast,
    ):
        with caplog.at_level(logging.WARNING, "pgchannels"):
            await layer.publish_many([("room", number) for number in range(500)])
            for _ in range(500):
                await within(anext(fast))
        assert slow.lost == 490
        assert [(await within(anext(slow))).payload for _ in range(10)] == list(range(490, 500))
    assert [record.message for record in caplog.records if "lost" in record.message] == [
        "a subscription to room: 1 message was lost: too many others waited for the receiver;"
        " further losses of this kind are told to their receivers alone"
    ]


OF_A_LATER_VERSION = b"\xff of a later version"


@pytest.mark.parametrize("road", ROADS)
async def test_what_cannot_be_read_is_told_at_its_place(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]", caplog: pytest.LogCaptureFixture, road: str
) -> None:
    async with ROADS[road](layer) as way:
        await way.send(layer, "before")
        await deliver(connection, way.address, way.channel, [OF_A_LATER_VERSION] * 2)
        await way.send(layer, "between")
        await deliver(connection, way.address, way.channel, [b""])
        await way.send(layer, "last")
        received = [(await within(way.receive()), len(way.gaps)) for _ in range(3)]
        assert received == [("before", 0), ("between", 2), ("last", 3)]
        assert way.gaps == [Gap(GapReason.UNREADABLE, 1)] * 3
    losses = node_of(layer).losses
    assert (losses.messages, losses.gaps, node_of(layer).receiver.payloads.unreadable) == (3, 3, 3)
    assert len([record for record in caplog.records if record.name == "pgchannels"]) == 1


async def test_what_cannot_be_read_raises_where_nobody_takes_gaps(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    since = await layer.publish("room", "before")
    async with layer.subscribe("room") as live:
        await deliver(connection, "topic:asgi:room", None, [OF_A_LATER_VERSION])
        await deliver(connection, "queue:asgi:jobs", None, [OF_A_LATER_VERSION])
        await layer.publish("room", "after")
        await layer.send("jobs", "after")
        async with layer.subscribe("room", since=since) as replaying:
            for subscription in (live, replaying):
                await require_unreadable(anext(subscription))
                assert (await within(anext(subscription))).payload == "after"
                assert subscription.lost == 1
    await require_unreadable(layer.receive("jobs"))
    assert await within(layer.receive("jobs")) == "after"


async def require_unreadable(receiving: Awaitable[object]) -> None:
    """It raises that one message could not be read."""
    text = (
        "1 message was lost: it could not be read: damaged, sealed with an unknown key,"
        " or in a format that is not registered here"
    )
    with pytest.raises(MessagesLost, match=text) as lost:
        await within(receiving)
    assert lost.value.gap == Gap(GapReason.UNREADABLE, 1)
