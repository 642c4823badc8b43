"""Flushing: nothing is left, and everything works as before."""

import asyncio
from typing import Any

import asyncpg

from pgchannels.django import PostgresChannelLayer
from tests.support.roads import node_of
from tests.support.waiting import within

from .layers import WITH_ONE_SERVER, AnyLayer, closing, drain, said, texts


async def test_flush_empties_channels(channel_layer: AnyLayer, channel: str) -> None:
    for number in range(3):
        await channel_layer.send(channel, said(number))
    await channel_layer.flush()
    assert await drain(channel_layer, channel) == []


async def test_flush_empties_a_channel_that_was_received_from(channel_layer: AnyLayer, channel: str) -> None:
    for number in range(3):
        await channel_layer.send(channel, said(number))
    assert await within(channel_layer.receive(channel)) == said(0)
    await channel_layer.flush()
    assert await drain(channel_layer, channel) == []


async def test_flush_empties_a_channel_whose_receiver_was_cancelled(channel_layer: AnyLayer, channel: str) -> None:
    for turns in range(7):
        receiving = asyncio.create_task(channel_layer.receive(channel))
        await asyncio.sleep(0)
        for number in range(2):
            await channel_layer.send(channel, said(number))
        impatient = asyncio.create_task(channel_layer.receive(channel))
        for _ in range(turns):
            await asyncio.sleep(0)
        impatient.cancel()
        await within(asyncio.wait([receiving, impatient]))
        await channel_layer.flush()
        assert await drain(channel_layer, channel) == []


async def test_flush_empties_groups(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    await channel_layer.flush()
    await channel_layer.group_send("room", said("hello"))
    assert await drain(channel_layer, channel) == []


async def test_flush_takes_group_messages_that_nobody_received_yet(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    await channel_layer.group_send("room", said("hello"))
    await channel_layer.flush()
    assert await drain(channel_layer, channel) == []


@WITH_ONE_SERVER
async def test_layer_works_after_a_flush(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    for _ in range(2):
        await channel_layer.flush()
        new = await channel_layer.new_channel()
        for member in (channel, new):
            await channel_layer.group_add("room", member)
            await channel_layer.send(member, said("direct"))
        await channel_layer.group_send("room", said("group"))
        for member in (channel, new):
            assert texts(await drain(channel_layer, member)) == ["direct", "group"]


async def test_flush_of_an_unused_layer_is_fine(channel_layer: AnyLayer) -> None:
    await channel_layer.flush()


async def test_receiver_that_waits_during_a_flush_gets_what_is_sent_after_it(
    postgres_layer: PostgresChannelLayer,
) -> None:
    # Ours alone: a flush of the oracle forgets its receivers.
    for channel in ("work_queue", await postgres_layer.new_channel()):
        receiving = asyncio.create_task(postgres_layer.receive(channel))
        await asyncio.sleep(0)
        await postgres_layer.flush()
        await postgres_layer.send(channel, said("after"))
        assert await within(receiving) == said("after")


async def test_flush_leaves_other_prefixes_alone(way: dict[str, Any]) -> None:
    # Ours alone: layers of the oracle share nothing in any case.
    async with (
        closing(PostgresChannelLayer(**way, prefix="one")) as one,
        closing(PostgresChannelLayer(**way, prefix="two")) as two,
    ):
        own = await two.new_channel()
        await two.group_add("room", own)
        await two.send(own, said("direct"))
        await two.send("work_queue", said("queued"))
        await one.flush()
        await two.group_send("room", said("group"))
        assert texts(await drain(two, own)) == ["direct", "group"]
        assert texts(await drain(two, "work_queue")) == ["queued"]


async def test_flush_is_over_for_every_node_when_it_returns(
    postgres_layer: PostgresChannelLayer, other_node: PostgresChannelLayer, way: dict[str, Any]
) -> None:
    async with closing(PostgresChannelLayer(**way)) as without_node:
        for flushing in (postgres_layer, other_node, without_node):
            channel = await other_node.new_channel()
            await other_node.group_add("room", channel)
            await postgres_layer.group_send("room", said("before"))
            await postgres_layer.send(channel, said("before"))
            await flushing.flush()
            node = node_of(other_node)
            assert not node.receiver.channels._topics
            assert not any(map(len, node.receiver.channels._mailboxes.values()))


async def test_flush_does_not_wait_for_a_node_that_is_gone(
    postgres_layer: PostgresChannelLayer,
    other_node: PostgresChannelLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await other_node.new_channel()
    node = node_of(other_node)
    await connection.execute("UPDATE pgchannels.node SET flushed_until = -1 WHERE id = $1", node.identity.id)
    await node._tasks.stop()
    flushing = asyncio.create_task(postgres_layer.flush())
    await connection.execute("UPDATE pgchannels.lease SET leased_until = now() WHERE node = $1", node.identity.id)
    await within(flushing)
