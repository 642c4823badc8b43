"""Channels that are full, in both layers alike."""

from typing import Any

import pytest
from channels.exceptions import ChannelFull

from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import until, within

from .layers import AnyLayer, closing


async def a_channel(layer: AnyLayer, kind: str) -> str:
    """A work queue, or a channel of this process."""
    return "work_queue" if kind == "work_queue" else await layer.new_channel()


@pytest.mark.parametrize("kind", ["work_queue", "own_channel"])
async def test_send_to_a_full_channel_raises_and_keeps_the_oldest(small_layer: AnyLayer, kind: str) -> None:
    channel = await a_channel(small_layer, kind)
    for number in range(3):
        await small_layer.send(channel, {"type": "x", "number": number})
    with pytest.raises(ChannelFull):
        await small_layer.send(channel, {"type": "x", "number": 3})
    assert [(await within(small_layer.receive(channel)))["number"] for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("kind", ["work_queue", "own_channel"])
async def test_channel_takes_again_once_something_was_received(small_layer: AnyLayer, kind: str) -> None:
    channel = await a_channel(small_layer, kind)
    for number in range(3):
        await small_layer.send(channel, {"type": "x", "number": number})
    await within(small_layer.receive(channel))
    await small_layer.send(channel, {"type": "x", "number": 3})
    assert [(await within(small_layer.receive(channel)))["number"] for _ in range(3)] == [1, 2, 3]


async def test_group_with_a_full_member_reaches_the_others(small_layer: AnyLayer) -> None:
    full, other = await small_layer.new_channel(), await small_layer.new_channel()
    for channel in (full, other):
        await small_layer.group_add("room", channel)
    for number in range(5):
        await small_layer.group_send("room", {"type": "x", "number": number})
        assert (await within(small_layer.receive(other)))["number"] == number
    assert [(await within(small_layer.receive(full)))["number"] for _ in range(3)] == [0, 1, 2]


async def test_channels_of_a_process_share_the_capacity_for_what_is_sent_to_them(way: dict[str, Any]) -> None:
    # Ours alone: the oracle counts each channel for itself, the specification the part up to the '!'.
    async with closing(PostgresChannelLayer(**way, capacity=3)) as layer:
        one, two, other_kind = [await layer.new_channel(kind) for kind in ("specific", "specific", "other")]
        for channel in (one, two, one):
            await layer.send(channel, {"type": "x"})
        with pytest.raises(ChannelFull):
            await layer.send(two, {"type": "x"})
        await layer.send(other_kind, {"type": "x"})
        await within(layer.receive(one))
        await layer.send(two, {"type": "x"})


async def test_sender_of_another_process_is_told_that_the_channels_of_a_process_are_full(
    way: dict[str, Any], other_node: PostgresChannelLayer
) -> None:
    async with closing(PostgresChannelLayer(**way, capacity=3)) as layer:
        one, two = [await layer.new_channel() for _ in range(2)]
        for channel in (one, one, two):
            await layer.send(channel, {"type": "x"})
        await until(lambda: is_full(other_node, two))
        for _ in range(2):
            await within(layer.receive(one))
        await until(lambda: takes(other_node, two))


async def test_group_messages_take_no_place_of_what_is_sent_to_channels(way: dict[str, Any]) -> None:
    # A group of thousands in one process would otherwise be over capacity with one message.
    async with closing(PostgresChannelLayer(**way, capacity=3)) as layer:
        channels = [await layer.new_channel() for _ in range(10)]
        for channel in channels:
            await layer.group_add("room", channel)
        for number in range(2):
            await layer.group_send("room", {"type": "x", "number": number})
        for channel in channels:
            assert [(await within(layer.receive(channel)))["number"] for _ in range(2)] == [0, 1]


async def takes(layer: PostgresChannelLayer, channel: str) -> bool:
    """Whether a channel takes a message."""
    try:
        await layer.send(channel, {"type": "x"})
    except ChannelFull:
        return False
    return True


async def is_full(layer: PostgresChannelLayer, channel: str) -> bool:
    """Whether a channel refuses a message."""
    return not await takes(layer, channel)
