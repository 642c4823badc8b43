"""What is too old is not received, holds no place, and what nobody receives costs its groups nothing for long."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from pgchannels import ChannelFull, Gap, GapReason, MessageLayer
from pgchannels.django import PostgresChannelLayer
from pgchannels.process.node import Node
from tests.support.roads import node_of
from tests.support.waiting import LIMIT_SECONDS, until, within

EXPIRY_SECONDS = 0.5
NO_HEARTBEAT = 3600.0  # nothing is swept by chance

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def layer(database_url: str) -> AsyncIterator[MessageLayer]:
    """A layer whose messages grow old soon, and whose heartbeat never comes."""
    async with MessageLayer(database_url, expiry=EXPIRY_SECONDS, heartbeat=NO_HEARTBEAT, capacity=3) as layer:
        yield layer


async def grown_old(node: Node, connection: Connection) -> None:
    """Return when all that was sent has expired, by the node's clock."""
    query = "SELECT max(extract(epoch FROM expires_at))::float8 FROM pgchannels.message"
    expires_at: float = await connection.fetchval(query)
    await until(lambda: asyncio.sleep(0, node._connections.database_time() > expires_at))


async def come(layer: MessageLayer) -> None:
    """Return when all that was published has come."""
    async with layer.subscribe("last") as subscription:
        await layer.publish("last", "one")
        await within(anext(subscription))


async def test_message_that_has_expired_is_not_received_from_a_channel(
    layer: MessageLayer, connection: Connection
) -> None:
    gaps: list[Gap] = []
    channel = await layer.new_channel()
    for number in range(2):
        await layer.send(channel, number)
    await grown_old(node_of(layer), connection)
    receiving = asyncio.create_task(layer.receive(channel, on_gap=gaps.append))
    await until(lambda: asyncio.sleep(0, bool(gaps)))
    await layer.send(channel, "fresh")
    assert await within(receiving) == "fresh"
    assert gaps == [Gap(GapReason.EXPIRED, 2)]


async def test_messages_that_have_expired_make_no_channel_full(layer: MessageLayer, connection: Connection) -> None:
    channel, other = await layer.new_channel(), await layer.new_channel()
    for number in range(3):
        await layer.send(channel, number)
    for full in (channel, other):
        with pytest.raises(ChannelFull):
            await layer.send(full, "too many")
    await grown_old(node_of(layer), connection)
    await layer.send(other, "fresh")


async def test_messages_that_have_expired_make_no_channel_full_for_senders_of_other_processes(
    database_url: str, layer: MessageLayer
) -> None:
    async with MessageLayer(database_url, expiry=EXPIRY_SECONDS, heartbeat=NO_HEARTBEAT) as other:
        channel = await layer.new_channel()
        while await takes(other, channel):
            await come(layer)
        await until(lambda: takes(other, channel))


async def takes(layer: MessageLayer, channel: str) -> bool:
    """Whether a message can be sent to a channel."""
    try:
        await layer.send(channel, "sent")
    except ChannelFull:
        return False
    return True


async def test_message_that_has_expired_is_not_received_by_a_subscription_and_does_not_fill_it(
    layer: MessageLayer, connection: Connection
) -> None:
    gaps: list[Gap] = []
    async with layer.subscribe("room", on_gap=gaps.append) as subscription:
        for number in range(3):
            await layer.publish("room", number)
        await come(layer)
        await grown_old(node_of(layer), connection)
        await layer.publish("room", "fresh")
        await come(layer)
        assert len(subscription._mailbox) == 1
        reading = asyncio.create_task(anext(subscription))
        await until(lambda: asyncio.sleep(0, bool(gaps)))
        await layer.publish("room", "fresher")
        await within(reading)
    assert gaps[0] in (Gap(GapReason.EXPIRED, 3), Gap(GapReason.EXPIRED, 4))


async def test_subscription_that_nobody_reads_keeps_no_message_that_has_expired(
    layer: MessageLayer, connection: Connection
) -> None:
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", 1)
        await come(layer)
        await grown_old(node_of(layer), connection)
        node_of(layer).beat_now()
        await until(lambda: asyncio.sleep(0, not len(subscription._mailbox)))
        assert subscription.lost == 1


async def test_message_that_the_log_keeps_for_longer_does_not_expire_by_the_receivers_measure(
    layer: MessageLayer, database_url: str
) -> None:
    async with MessageLayer(database_url) as sender, layer.subscribe("room") as subscription:
        node = node_of(layer)
        await sender.publish("room", b"x" * 10_000)  # is read from the log
        await until(lambda: asyncio.sleep(0, bool(len(subscription._mailbox))))
        until_when = node._connections.database_time() + 2 * EXPIRY_SECONDS
        await until(lambda: asyncio.sleep(0, node._connections.database_time() > until_when))
        assert (await within(anext(subscription))).payload == b"x" * 10_000


async def test_channel_of_a_consumer_that_died_leaves_its_groups_and_no_other_does(
    database_url: str, connection: Connection
) -> None:
    layer = PostgresChannelLayer(database_url, expiry=EXPIRY_SECONDS, heartbeat=NO_HEARTBEAT)
    dead, living = await layer.new_channel(), await layer.new_channel()
    for channel in (dead, living):
        await layer.group_add("room", channel)
    receiving = asyncio.create_task(layer.receive(living))
    await layer.group_send("room", {"type": "hi"})
    assert await within(receiving) == {"type": "hi"}
    receiving = asyncio.create_task(layer.receive(living))
    node = node_of(layer)
    await grown_old(node, connection)
    node.beat_now()
    channels = node.receiver.channels
    await until(lambda: asyncio.sleep(0, bool(channels.abandoned)))
    assert list(channels._topics) == [living]
    await layer.group_send("room", {"type": "again"})
    assert await within(receiving) == {"type": "again"}
    assert not len(channels._mailboxes[dead])
    await layer.close()


async def test_sweep_of_a_flood_lets_the_event_loop_turn(layer: MessageLayer) -> None:
    node = node_of(layer)
    channels = node.receiver.channels
    is_time_over = False
    async with layer.subscribe("room"):
        for number in range(1_000):
            channels.join("topic:asgi:room", f"specific.{node.identity.name}!{number}", after=0, obeyed_until=0)
        for mailbox in channels._mailboxes.values():
            mailbox._has_expired = lambda _: is_time_over
        for number in range(3):
            await layer.publish("room", number)
        await come(layer)
        assert sum(map(len, channels._mailboxes.values())) == 3_000
        is_time_over = True
        node.receiver.sweep.begin()
        dropped = [count async for count in dropped_in_each_turn(node, 3_000)]
    assert max(dropped) <= 50 * 50
    assert len(dropped) > 10


async def dropped_in_each_turn(node: Node, count: int) -> AsyncIterator[int]:
    """How many messages the node loses in each turn of the event loop, until they are so many."""
    lost, end = node.losses.messages, node.losses.messages + count
    async with asyncio.timeout(LIMIT_SECONDS):
        while lost < end:
            await asyncio.sleep(0)
            yield node.losses.messages - lost
            lost = node.losses.messages
