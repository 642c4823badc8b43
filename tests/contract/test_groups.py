"""Groups: who gets what is sent to one."""

import asyncio

import pytest

from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

from .layers import WITH_ONE_SERVER, AnyLayer, drain, receive_many, said, texts


async def test_group_message_reaches_every_member_and_nobody_else(channel_layer: AnyLayer) -> None:
    members = [await channel_layer.new_channel() for _ in range(3)]
    stranger = await channel_layer.new_channel()
    for member in members:
        await channel_layer.group_add("room", member)
    await channel_layer.group_send("room", said("hello"))
    for member in members:
        assert await drain(channel_layer, member) == [said("hello")]
    assert await drain(channel_layer, stranger) == []


async def test_member_that_waits_gets_the_group_message(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    receiving = asyncio.create_task(channel_layer.receive(channel))
    await asyncio.sleep(0)
    await channel_layer.group_send("room", said("hello"))
    assert await within(receiving) == said("hello")


async def test_group_messages_are_received_in_the_order_of_sending(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    for number in range(50):
        await channel_layer.group_send("room", said(number))
    assert texts(await receive_many(channel_layer, channel, 50)) == list(range(50))


@WITH_ONE_SERVER
@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_group_and_direct_messages_of_a_channel_keep_the_order_of_sending(
    channel_layer: AnyLayer, channel: str, size: int
) -> None:
    await channel_layer.group_add("room", channel)
    for number in range(5):
        await channel_layer.group_send("room", said(f"group {number}") | {"filling": "x" * size})
        await channel_layer.send(channel, said(f"direct {number}"))
    expected = [f"{way} {number}" for number in range(5) for way in ("group", "direct")]
    assert texts(await drain(channel_layer, channel)) == expected


@WITH_ONE_SERVER
@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_messages_of_several_groups_keep_the_order_of_sending(
    channel_layer: AnyLayer, channel: str, size: int
) -> None:
    for group in ("large", "small"):
        await channel_layer.group_add(group, channel)
    for number in range(5):
        await channel_layer.group_send("large", said(f"large {number}") | {"filling": "x" * size})
        await channel_layer.group_send("small", said(f"small {number}"))
    expected = [f"{group} {number}" for number in range(5) for group in ("large", "small")]
    assert texts(await drain(channel_layer, channel)) == expected


async def test_member_gets_nothing_from_before_it_was_added(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", await channel_layer.new_channel())
    await channel_layer.group_send("room", said("before"))
    await channel_layer.group_add("room", channel)
    await channel_layer.group_send("room", said("after"))
    assert texts(await drain(channel_layer, channel)) == ["after"]


async def test_discarded_channel_gets_nothing_more(channel_layer: AnyLayer, channel: str) -> None:
    remaining = await channel_layer.new_channel()
    for member in (channel, remaining):
        await channel_layer.group_add("room", member)
    await channel_layer.group_send("room", said("to both"))
    await channel_layer.group_discard("room", channel)
    await channel_layer.group_send("room", said("to one"))
    assert texts(await drain(channel_layer, channel)) == ["to both"]
    assert texts(await drain(channel_layer, remaining)) == ["to both", "to one"]


async def test_channel_added_again_gets_nothing_from_the_time_between(channel_layer: AnyLayer, channel: str) -> None:
    for number in range(5):
        await channel_layer.group_add("room", channel)
        await channel_layer.group_send("room", said(f"inside {number}"))
        await channel_layer.group_discard("room", channel)
        await channel_layer.group_send("room", said(f"outside {number}"))
    assert texts(await drain(channel_layer, channel)) == [f"inside {number}" for number in range(5)]


@WITH_ONE_SERVER
async def test_channel_in_several_groups_gets_the_messages_of_each(channel_layer: AnyLayer, channel: str) -> None:
    for group in ("one", "two", "three"):
        await channel_layer.group_add(group, channel)
    await channel_layer.group_discard("two", channel)
    for group in ("one", "two", "three"):
        await channel_layer.group_send(group, said(group))
    assert texts(await drain(channel_layer, channel)) == ["one", "three"]


async def test_channel_added_twice_gets_a_message_once(channel_layer: AnyLayer, channel: str) -> None:
    for _ in range(2):
        await channel_layer.group_add("room", channel)
    await channel_layer.group_send("room", said("hello"))
    assert texts(await drain(channel_layer, channel)) == ["hello"]


async def test_channel_added_twice_is_discarded_at_once(channel_layer: AnyLayer, channel: str) -> None:
    for _ in range(2):
        await channel_layer.group_add("room", channel)
    await channel_layer.group_discard("room", channel)
    await channel_layer.group_send("room", said("hello"))
    assert await drain(channel_layer, channel) == []


async def test_discarding_what_is_not_in_a_group_is_fine(channel_layer: AnyLayer, channel: str) -> None:
    member = await channel_layer.new_channel()
    await channel_layer.group_discard("unknown", channel)
    await channel_layer.group_add("room", member)
    await channel_layer.group_discard("room", channel)
    await channel_layer.group_send("room", said("hello"))
    assert texts(await drain(channel_layer, member)) == ["hello"]


async def test_discarding_twice_is_fine(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    for _ in range(2):
        await channel_layer.group_discard("room", channel)
    await channel_layer.group_send("room", said("hello"))
    assert await drain(channel_layer, channel) == []


async def test_channel_that_nobody_knows_can_be_added_and_discarded(channel_layer: AnyLayer) -> None:
    await channel_layer.group_add("room", "nobody.here!abcdef")
    await channel_layer.group_send("room", said("hello"))
    await channel_layer.group_discard("room", "nobody.here!abcdef")


async def test_sending_to_an_unknown_group_is_fine(channel_layer: AnyLayer) -> None:
    await channel_layer.group_send("unknown", said("hello"))


async def test_sending_to_a_group_that_everybody_left_is_fine(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    await channel_layer.group_discard("room", channel)
    await channel_layer.group_send("room", said("hello"))


async def test_work_queue_in_a_group_gets_each_message_once_whatever_the_receivers(channel_layer: AnyLayer) -> None:
    own = await channel_layer.new_channel()
    for member in ("work_queue", own):
        await channel_layer.group_add("room", member)
    for number in range(3):
        await channel_layer.group_send("room", said(number))
    receiving = [channel_layer.receive("work_queue") for _ in range(3)]
    assert sorted(texts(await within(asyncio.gather(*receiving)))) == [0, 1, 2]
    assert texts(await drain(channel_layer, own)) == [0, 1, 2]
    assert await drain(channel_layer, "work_queue") == []


async def test_receivers_waiting_on_a_work_queue_in_a_group_get_different_messages(
    postgres_layer: PostgresChannelLayer,
) -> None:
    # Ours alone: the oracle forgets the receivers that still wait once the channel was empty.
    await postgres_layer.group_add("room", "work_queue")
    receiving = [asyncio.create_task(postgres_layer.receive("work_queue")) for _ in range(3)]
    await asyncio.sleep(0)
    for number in range(3):
        await postgres_layer.group_send("room", said(number))
    assert sorted(texts(await within(asyncio.gather(*receiving)))) == [0, 1, 2]
    assert await drain(postgres_layer, "work_queue") == []


async def test_burst_to_a_work_queue_and_to_its_groups_is_received_in_the_order_of_sending(
    postgres_layer: PostgresChannelLayer,
) -> None:
    # Ours alone: the oracle's sends to groups and to channels take different numbers of turns of the loop.
    for group in ("room", "news"):
        await postgres_layer.group_add(group, "work_queue")
    sends = []
    for number in range(0, 40, 4):
        sends += [
            postgres_layer.send("work_queue", said(number)),
            postgres_layer.group_send("room", said(number + 1)),
            postgres_layer.group_send("news", said(number + 2)),
            postgres_layer.group_send("room", said(number + 3)),
        ]
    await asyncio.gather(*sends)
    assert texts(await receive_many(postgres_layer, "work_queue", 40)) == list(range(40))


async def test_group_and_channel_of_the_same_name_are_apart(channel_layer: AnyLayer) -> None:
    member = await channel_layer.new_channel()
    await channel_layer.group_add("room", member)
    await channel_layer.send("room", said("to the channel"))
    await channel_layer.group_send("room", said("to the group"))
    assert texts(await drain(channel_layer, "room")) == ["to the channel"]
    assert texts(await drain(channel_layer, member)) == ["to the group"]


async def test_members_added_at_the_same_time_all_get_a_message(channel_layer: AnyLayer) -> None:
    members = [await channel_layer.new_channel() for _ in range(40)]
    await asyncio.gather(*[channel_layer.group_add("room", member) for member in members])
    await asyncio.gather(*[channel_layer.group_discard("room", member) for member in members[20:]])
    await channel_layer.group_send("room", said("hello"))
    for member in members[:20]:
        assert texts(await drain(channel_layer, member)) == ["hello"]
    for member in members[20:]:
        assert await drain(channel_layer, member) == []


async def test_concurrent_group_messages_reach_every_member_once(channel_layer: AnyLayer) -> None:
    members = [await channel_layer.new_channel() for _ in range(3)]
    for member in members:
        await channel_layer.group_add("room", member)
    await asyncio.gather(*[channel_layer.group_send("room", said(number)) for number in range(100)])
    for member in members:
        assert sorted(texts(await drain(channel_layer, member))) == list(range(100))
