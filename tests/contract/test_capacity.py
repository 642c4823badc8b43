"""Channels that are full, in both layers alike."""

import pytest
from channels.exceptions import ChannelFull

from tests.waiting import within

from .layers import AnyLayer


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
