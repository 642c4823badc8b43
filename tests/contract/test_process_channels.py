"""Receiving by the name up to the '!': from every channel of the process that begins so. The oracle does not do it."""

import asyncio
from typing import Any

import pytest

from pgchannels import LayerClosed
from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

from .layers import said


def prefix_of(channel: str) -> str:
    """The part that a process listens on."""
    return channel[: channel.index("!") + 1]


def found(channel: str, text: object) -> dict[str, Any]:
    """A message as it comes by the prefix."""
    return said(text) | {"__asgi_channel__": channel}


async def test_messages_to_all_channels_with_the_prefix_come_in_their_order(
    postgres_layer: PostgresChannelLayer, other_node: PostgresChannelLayer
) -> None:
    one, two = [await postgres_layer.new_channel() for _ in range(2)]
    other_kind = await postgres_layer.new_channel("other")
    for sender in (postgres_layer, other_node):
        for number, channel in enumerate((one, two, other_kind, one)):
            await sender.send(channel, said(number))
        received = [await within(postgres_layer.receive(prefix_of(one))) for _ in range(3)]
        assert received == [found(one, 0), found(two, 1), found(one, 3)]
        assert await within(postgres_layer.receive(other_kind)) == said(2)


async def test_receiver_that_waits_gets_what_is_sent_to_a_name_that_nobody_made(
    postgres_layer: PostgresChannelLayer, other_node: PostgresChannelLayer
) -> None:
    prefix = prefix_of(await postgres_layer.new_channel())
    receiving = asyncio.create_task(postgres_layer.receive(prefix))
    await other_node.send(f"{prefix}local", said("hello"))
    assert await within(receiving) == found(f"{prefix}local", "hello")


async def test_group_messages_of_members_come_by_the_prefix(postgres_layer: PostgresChannelLayer) -> None:
    channels = {await postgres_layer.new_channel() for _ in range(3)}
    for channel in channels:
        await postgres_layer.group_add("room", channel)
    await postgres_layer.group_send("room", said("hello"))
    prefix = prefix_of(next(iter(channels)))
    received = [await within(postgres_layer.receive(prefix)) for _ in channels]
    assert {message["__asgi_channel__"] for message in received} == channels


async def test_receivers_that_wait_by_one_prefix_get_different_messages(postgres_layer: PostgresChannelLayer) -> None:
    channel = await postgres_layer.new_channel()
    receiving = [asyncio.create_task(postgres_layer.receive(prefix_of(channel))) for _ in range(5)]
    await asyncio.sleep(0)
    for number in range(5):
        await postgres_layer.send(channel, said(number))
    received = await within(asyncio.gather(*receiving))
    assert sorted(message["text"] for message in received) == list(range(5))


async def test_cancelled_receiver_leaves_the_message_to_the_next(postgres_layer: PostgresChannelLayer) -> None:
    channel = await postgres_layer.new_channel()
    for turns in range(10):
        receiving = asyncio.create_task(postgres_layer.receive(prefix_of(channel)))
        sending = asyncio.create_task(postgres_layer.send(channel, said(turns)))
        for _ in range(turns):
            await asyncio.sleep(0)
        receiving.cancel()
        await within(asyncio.wait([receiving, sending]))
        if receiving.cancelled():
            assert await within(postgres_layer.receive(prefix_of(channel))) == found(channel, turns)


async def test_closing_the_layer_ends_the_wait(postgres_layer: PostgresChannelLayer) -> None:
    prefix = prefix_of(await postgres_layer.new_channel())
    receiving = asyncio.create_task(postgres_layer.receive(prefix))
    while not postgres_layer._process.here().receiver.channels._lines:  # type: ignore[union-attr]  # noqa: ASYNC110
        await asyncio.sleep(0)
    await postgres_layer.close()
    with pytest.raises(LayerClosed):
        await within(receiving)


async def test_prefix_of_another_process_is_refused(
    postgres_layer: PostgresChannelLayer, other_node: PostgresChannelLayer
) -> None:
    prefix = prefix_of(await other_node.new_channel())
    with pytest.raises(LayerClosed, match="another event loop or process"):
        await within(postgres_layer.receive(prefix))
