"""Sending to channels and receiving from them."""

import asyncio
from typing import Any

from pgchannels.django import PostgresChannelLayer
from tests.contract.conftest import LayerFactory
from tests.support.waiting import within

from .layers import CAPACITY, AnyLayer, Message, closing, drain, receive_many, said, texts


async def test_message_sent_to_a_channel_is_received_from_it(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.send(channel, said("hello"))
    assert await within(channel_layer.receive(channel)) == said("hello")


async def test_receiver_that_waits_gets_what_is_sent_later(channel_layer: AnyLayer, channel: str) -> None:
    receiving = asyncio.create_task(channel_layer.receive(channel))
    await asyncio.sleep(0)
    await channel_layer.send(channel, said("later"))
    assert await within(receiving) == said("later")


async def test_messages_of_a_channel_are_received_in_the_order_of_sending(
    channel_layer: AnyLayer, channel: str
) -> None:
    for number in range(50):
        await channel_layer.send(channel, said(number))
    assert texts(await receive_many(channel_layer, channel, 50)) == list(range(50))


async def test_large_message_keeps_its_place_between_small_ones(channel_layer: AnyLayer, channel: str) -> None:
    sent = ["before", "x" * 1_000_000, "between", b"y" * 1_000_000, "after"]
    for text in sent:
        await channel_layer.send(channel, said(text))
    assert texts(await drain(channel_layer, channel)) == sent


async def test_concurrent_senders_lose_nothing(channel_layer: AnyLayer, channel: str) -> None:
    await asyncio.gather(*[channel_layer.send(channel, said(number)) for number in range(200)])
    assert sorted(texts(await drain(channel_layer, channel))) == list(range(200))


async def test_first_receive_of_a_layer_disturbs_none_of_its_senders(new_layer: LayerFactory) -> None:
    for _ in range(10):
        async with closing(new_layer(capacity=CAPACITY)) as layer:
            receiving = asyncio.create_task(layer.receive("work_queue"))
            await asyncio.gather(*[layer.send("work_queue", said(number)) for number in range(50)])
            received = [await within(receiving), *await drain(layer, "work_queue")]
            assert sorted(texts(received)) == list(range(50))


async def test_channels_do_not_receive_each_others_messages(channel_layer: AnyLayer) -> None:
    channels = ["one", "two", await channel_layer.new_channel(), await channel_layer.new_channel()]
    for channel in channels:
        await channel_layer.send(channel, said(channel))
    for channel in reversed(channels):
        assert texts(await drain(channel_layer, channel)) == [channel]


async def test_sending_to_a_channel_that_nobody_has_ever_received_from_is_fine(channel_layer: AnyLayer) -> None:
    await channel_layer.send("nobody", said("hello"))
    await channel_layer.send("nobody.here!abcdef", said("hello"))


async def test_receivers_waiting_on_one_channel_get_different_messages(channel_layer: AnyLayer, channel: str) -> None:
    receiving = [asyncio.create_task(channel_layer.receive(channel)) for _ in range(4)]
    await asyncio.sleep(0)
    for number in range(4):
        await channel_layer.send(channel, said(number))
    assert sorted(texts(await within(asyncio.gather(*receiving)))) == [0, 1, 2, 3]
    assert await drain(channel_layer, channel) == []


async def test_receiver_goes_on_waiting_when_another_of_its_channel_got_a_message(
    postgres_layer: PostgresChannelLayer,
) -> None:
    # Ours alone: the oracle forgets the receivers that still wait once the channel was empty.
    for channel in ("work_queue", await postgres_layer.new_channel()):
        waiting = {asyncio.create_task(postgres_layer.receive(channel)) for _ in range(3)}
        received = []
        for number in range(3):
            await postgres_layer.send(channel, said(number))
            done, waiting = await within(asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED))
            received += [receiver.result()["text"] for receiver in done]
        assert received == [0, 1, 2]


async def test_cancelled_receive_loses_nothing(channel_layer: AnyLayer, channel: str) -> None:
    received = []
    for number in range(50):
        receiving = asyncio.create_task(channel_layer.receive(channel))
        sending = asyncio.create_task(channel_layer.send(channel, said(number)))
        for _ in range(number % 9):
            await asyncio.sleep(0)
        receiving.cancel()
        await within(asyncio.wait([receiving, sending]))
        if not receiving.cancelled():
            received.append(receiving.result())
    received += await drain(channel_layer, channel)
    assert texts(received) == list(range(50))


async def test_receive_cancelled_with_the_message_in_reach_leaves_it_to_the_next(
    channel_layer: AnyLayer, channel: str
) -> None:
    first = asyncio.create_task(channel_layer.receive(channel))
    await asyncio.sleep(0)
    await channel_layer.send(channel, said("hello"))
    first.cancel()
    await within(asyncio.wait([first]))
    messages = [] if first.cancelled() else [first.result()]
    assert messages + await drain(channel_layer, channel) == [said("hello")]


async def test_cancelled_receiver_leaves_the_message_to_one_that_waits_beside_it(
    postgres_layer: PostgresChannelLayer,
) -> None:
    # Ours alone: a cancelled receiver of the oracle takes the channel from those that wait beside it.
    for channel in ("work_queue", await postgres_layer.new_channel()):
        impatient, patient = (asyncio.create_task(postgres_layer.receive(channel)) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        await within(asyncio.wait([impatient]))
        await postgres_layer.send(channel, said("hello"))
        assert await within(patient) == said("hello")


async def test_waiting_with_a_limit_again_and_again_loses_nothing(channel_layer: AnyLayer, channel: str) -> None:
    async def receive_impatiently() -> list[Message]:
        messages: list[Message] = []
        while len(messages) < 20:
            try:
                messages.append(await asyncio.wait_for(channel_layer.receive(channel), timeout=0.001))
            except TimeoutError:
                continue
        return messages

    receiving = asyncio.create_task(receive_impatiently())
    for number in range(20):
        await channel_layer.send(channel, said(number))
        await asyncio.sleep(0)
    assert texts(await within(receiving)) == list(range(20))


async def test_prefixes_share_neither_channels_nor_groups(way: dict[str, Any]) -> None:
    # Ours alone: layers of the oracle share nothing in any case.
    async with (
        closing(PostgresChannelLayer(**way, prefix="one")) as one,
        closing(PostgresChannelLayer(**way, prefix="two")) as two,
    ):
        for layer, prefix in ((one, "one"), (two, "two")):
            await layer.group_add("room", "member")
            await layer.send("work_queue", said(f"queued in {prefix}"))
            await layer.group_send("room", said(f"group of {prefix}"))
        for layer, prefix in ((one, "one"), (two, "two")):
            assert texts(await drain(layer, "work_queue")) == [f"queued in {prefix}"]
            assert texts(await drain(layer, "member")) == [f"group of {prefix}"]
