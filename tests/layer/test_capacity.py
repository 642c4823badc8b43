"""Channels and queues that are full."""

import asyncio

import asyncpg
import pytest

from pgchannels import ChannelFull, Gap, GapReason, MessageLayer
from tests.support.roads import node_of
from tests.support.waiting import until, within

CAPACITY, MOST_TAKEN = 5, 1_000


async def fill(layer: MessageLayer, channel: str) -> int:
    """Send numbers until the channel is full; returns how many it took."""
    for number in range(MOST_TAKEN):
        if not await takes(layer, channel, number):
            return number
    raise AssertionError(f"{channel} took {MOST_TAKEN} messages")


async def takes(layer: MessageLayer, channel: str, payload: object) -> bool:
    """Whether a channel takes a message."""
    try:
        await layer.send(channel, payload)
    except ChannelFull:
        return False
    return True


async def test_queue_takes_exactly_its_capacity_and_again_what_is_claimed(database_url: str) -> None:
    async with MessageLayer(database_url, capacity=CAPACITY) as layer:
        assert await fill(layer, "jobs") == CAPACITY
        assert [await within(layer.receive("jobs")) for _ in range(2)] == [0, 1]
        assert await fill(layer, "jobs") == 2
        assert [await within(layer.receive("jobs")) for _ in range(CAPACITY)] == [2, 3, 4, 0, 1]


async def test_batch_of_concurrent_sends_fills_a_queue_exactly(database_url: str) -> None:
    async with MessageLayer(database_url, capacity=CAPACITY) as layer:
        sends = [layer.send("jobs", number) for number in range(20)] + [layer.publish("room", 0)]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert [isinstance(outcome, ChannelFull) for outcome in outcomes] == 5 * [False] + 15 * [True] + [False]
        assert [await within(layer.receive("jobs")) for _ in range(CAPACITY)] == list(range(CAPACITY))


async def test_expired_messages_take_no_room_in_a_queue(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gaps: list[Gap] = []
    async with MessageLayer(database_url, capacity=CAPACITY) as layer:
        assert await fill(layer, "jobs") == CAPACITY
        await connection.execute("UPDATE pgchannels.message SET expires_at = now() WHERE number <= 3")
        assert await fill(layer, "jobs") == 3
        received = [await within(layer.receive("jobs", on_gap=gaps.append)) for _ in range(CAPACITY)]
    assert received == [3, 4, 0, 1, 2]
    assert gaps == [Gap(GapReason.EXPIRED, 3)]


async def test_pattern_decides_on_the_capacity_of_a_queue(database_url: str) -> None:
    async with MessageLayer(database_url, channel_capacity={"small.*": 2}, capacity=CAPACITY) as layer:
        assert await fill(layer, "small.jobs") == 2
        assert await fill(layer, "jobs") == CAPACITY


async def test_own_channel_takes_exactly_its_capacity(database_url: str) -> None:
    async with MessageLayer(database_url, capacity=CAPACITY) as layer:
        channel = await layer.new_channel()
        assert await fill(layer, channel) == CAPACITY
        assert await within(layer.receive(channel)) == 0
        assert await fill(layer, channel) == 1
        sends = [layer.send(channel, number) for number in range(3)]
        assert all(isinstance(o, ChannelFull) for o in await asyncio.gather(*sends, return_exceptions=True))


async def test_sender_of_another_process_is_told_that_a_channel_is_full_and_when_it_no_longer_is(
    database_url: str, layer: MessageLayer
) -> None:
    async with MessageLayer(database_url, capacity=CAPACITY) as owner:
        channel = await owner.new_channel()
        sent = await within(fill(layer, channel))
        assert sent >= CAPACITY
        assert [await within(owner.receive(channel)) for _ in range(sent)] == list(range(sent))
        await until(lambda: takes(layer, channel, "once more"))


async def test_full_channel_of_a_node_that_is_gone_leaves_nothing_in_the_database(
    database_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(database_url, capacity=CAPACITY) as owner:
        channel = await owner.new_channel()
        await fill(layer, channel)
        full = await connection.fetch("SELECT channel FROM pgchannels.full_channel")
        assert {row["channel"] for row in full} == {channel, channel.split("!")[0] + "!"}
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.full_channel") == 0


async def test_messages_that_nobody_receives_leave_the_memory_of_their_node_when_they_expire(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(database_url, expiry=0.5, heartbeat=0.05) as layer:
        channel = await layer.new_channel()
        await layer.send(channel, "nobody receives this")
        node = node_of(layer)
        assert channel in node.receiver.channels._mailboxes
        await until(lambda: asyncio.sleep(0, channel not in node.receiver.channels._mailboxes))


async def test_claimed_message_that_nobody_waits_for_any_more_goes_back_to_the_queue(
    database_url: str, layer: MessageLayer
) -> None:
    async with MessageLayer(database_url, heartbeat=0.2) as fickle:
        for number in range(20):
            receiving = asyncio.create_task(fickle.receive("jobs"))
            await layer.send("jobs", number)
            receiving.cancel()
            await asyncio.wait([receiving])
            if receiving.cancelled():
                assert await within(layer.receive("jobs")) == number


async def test_copies_for_a_full_queue_are_dropped_and_others_get_theirs(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    from pgchannels.django import PostgresChannelLayer

    layer = PostgresChannelLayer(database_url, capacity=2)
    channel = await layer.new_channel()
    await layer.group_add("room", "jobs")
    await layer.group_add("room", channel)
    for number in range(3):
        await layer.group_send("room", {"type": "x", "number": number})
        assert (await within(layer.receive(channel)))["number"] == number
    assert [(await within(layer.receive("jobs")))["number"] for _ in range(2)] == [0, 1]
    assert "a queue in a topic: 1 message was lost" in caplog.text
    await layer.close()
