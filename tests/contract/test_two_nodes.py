"""Two of our layers on one database, as two processes would have them."""

import asyncio
from collections import Counter

import pytest

from pgchannels import LayerClosed
from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

from .layers import drain, said, texts


@pytest.fixture
def nodes(
    postgres_layer: PostgresChannelLayer, other_node: PostgresChannelLayer
) -> tuple[PostgresChannelLayer, PostgresChannelLayer]:
    """Node A and node B."""
    return postgres_layer, other_node


Nodes = tuple[PostgresChannelLayer, PostgresChannelLayer]


async def test_message_reaches_a_channel_of_the_other_node(nodes: Nodes) -> None:
    for sender, receiver in (nodes, reversed(nodes)):
        channel = await receiver.new_channel()
        await sender.send(channel, said("hello"))
        assert texts(await drain(receiver, channel)) == ["hello"]


async def test_receiver_that_waits_gets_a_message_of_the_other_node(nodes: Nodes) -> None:
    a, b = nodes
    for channel in (await b.new_channel(), "work_queue"):
        receiving = asyncio.create_task(b.receive(channel))
        await asyncio.sleep(0)
        await a.send(channel, said("hello"))
        assert await within(receiving) == said("hello")


async def test_two_nodes_have_different_channels(nodes: Nodes) -> None:
    names = [await node.new_channel() for node in nodes for _ in range(50)]
    assert len(set(names)) == 100


async def test_channel_of_the_other_node_cannot_be_received_from(nodes: Nodes) -> None:
    a, b = nodes
    channel = await b.new_channel()
    with pytest.raises(LayerClosed):
        await within(a.receive(channel))
    await a.send(channel, said("hello"))
    assert texts(await drain(b, channel)) == ["hello"]


async def test_group_message_reaches_the_members_of_both_nodes_once(nodes: Nodes) -> None:
    members = [(node, await node.new_channel()) for node in nodes for _ in range(2)]
    for node, channel in members:
        await node.group_add("room", channel)
    for number, node in enumerate(nodes):
        await node.group_send("room", said(number))
    for node, channel in members:
        assert texts(await drain(node, channel)) == [0, 1]


async def test_group_is_reached_from_any_node_once_any_node_has_added_a_channel(nodes: Nodes) -> None:
    _, b = nodes
    for adding in nodes:
        for sending in nodes:
            channel = await b.new_channel()
            await adding.group_add("room", channel)
            await sending.group_send("room", said("hello"))
            assert texts(await drain(b, channel)) == ["hello"]


async def test_group_is_left_for_every_node_once_any_node_has_discarded_a_channel(nodes: Nodes) -> None:
    a, b = nodes
    for discarding in nodes:
        for sending in nodes:
            channel = await b.new_channel()
            await b.group_add("room", channel)
            await sending.group_send("room", said("inside"))
            if (discarding, sending) == (b, a):
                # A node's own channel leaves at once: it does not wait for what others have on their way.
                assert await within(b.receive(channel)) == said("inside")
            await discarding.group_discard("room", channel)
            await sending.group_send("room", said("outside"))
            expected = [] if (discarding, sending) == (b, a) else ["inside"]
            assert texts(await drain(b, channel)) == expected


async def test_other_members_of_a_node_stay_when_the_other_node_discards_one(nodes: Nodes) -> None:
    a, b = nodes
    leaving, staying = await b.new_channel(), await b.new_channel()
    for channel in (leaving, staying):
        await a.group_add("room", channel)
    await a.group_discard("room", leaving)
    await a.group_send("room", said("hello"))
    assert texts(await drain(b, staying)) == ["hello"]
    assert await drain(b, leaving) == []


async def test_channel_added_by_both_nodes_gets_a_message_once_and_either_can_discard_it(nodes: Nodes) -> None:
    a, b = nodes
    channel = await b.new_channel()
    for node in nodes:
        await node.group_add("room", channel)
    await a.group_send("room", said("once"))
    await a.group_discard("room", channel)
    await b.group_send("room", said("never"))
    assert texts(await drain(b, channel)) == ["once"]


async def test_channels_of_the_other_node_added_one_after_the_other_are_all_reached(nodes: Nodes) -> None:
    a, b = nodes
    channels = [await b.new_channel() for _ in range(10)]
    for channel in channels:
        await a.group_add("room", channel)
    await a.group_send("room", said("hello"))
    assert [texts(await drain(b, channel)) for channel in channels] == [["hello"]] * 10


async def test_channels_of_the_other_node_discarded_one_after_the_other_are_all_left_out(nodes: Nodes) -> None:
    a, b = nodes
    channels = [await b.new_channel() for _ in range(10)]
    for channel in channels:
        await b.group_add("room", channel)
    for channel in channels:
        await a.group_discard("room", channel)
    await a.group_send("room", said("hello"))
    assert [texts(await drain(b, channel)) for channel in channels] == [[]] * 10


async def test_channel_of_the_other_node_added_and_discarded_again_and_again_is_where_it_was_put_last(
    nodes: Nodes,
) -> None:
    a, b = nodes
    channel = await b.new_channel()
    for number in range(10):
        await a.group_add("room", channel)
        await a.group_send("room", said(f"inside {number}"))
        await a.group_discard("room", channel)
        await a.group_send("room", said(f"outside {number}"))
    assert texts(await drain(b, channel)) == [f"inside {number}" for number in range(10)]


async def test_group_and_direct_messages_keep_the_order_of_sending_once_the_other_node_added_the_channel(
    nodes: Nodes,
) -> None:
    a, b = nodes
    channel = await b.new_channel()
    await a.group_add("room", channel)
    for number in range(10):
        await a.group_send("room", said(f"group {number}"))
        await a.send(channel, said(f"direct {number}"))
    expected = [f"{way} {number}" for number in range(10) for way in ("group", "direct")]
    assert texts(await drain(b, channel)) == expected


async def test_channels_of_the_other_node_added_at_the_same_time_are_all_reached(nodes: Nodes) -> None:
    a, b = nodes
    channels = [await b.new_channel() for _ in range(40)]
    await within(asyncio.gather(*[a.group_add(f"room-{number % 4}", name) for number, name in enumerate(channels)]))
    for number in range(4):
        await b.group_send(f"room-{number}", said(number))
    for number, channel in enumerate(channels):
        assert texts(await drain(b, channel)) == [number % 4]


async def test_nodes_that_add_each_others_channels_at_the_same_time_do_not_block(nodes: Nodes) -> None:
    a, b = nodes
    of_a, of_b = [await a.new_channel() for _ in range(20)], [await b.new_channel() for _ in range(20)]
    adding = [a.group_add("room", channel) for channel in of_b] + [b.group_add("room", channel) for channel in of_a]
    await within(asyncio.gather(*adding))
    await a.group_send("room", said("hello"))
    for node, channels in ((a, of_a), (b, of_b)):
        for channel in channels:
            assert texts(await drain(node, channel)) == ["hello"]


async def test_work_queue_added_and_discarded_by_one_node_is_so_for_the_other(nodes: Nodes) -> None:
    a, b = nodes
    await a.group_add("room", "work_queue")
    await b.group_add("room", "work_queue")
    await b.group_send("room", said("inside"))
    await b.group_discard("room", "work_queue")
    await a.group_send("room", said("outside"))
    assert texts(await drain(b, "work_queue")) == ["inside"]


async def consume(node: PostgresChannelLayer, channel: str) -> list[int]:
    """The numbers of a channel until it says stop."""
    numbers = []
    while (message := await within(node.receive(channel)))["text"] != "stop":
        numbers.append(message["text"])
    return numbers


async def test_receivers_on_both_nodes_share_a_work_queue_without_loss_or_repetition(nodes: Nodes) -> None:
    consuming = [asyncio.create_task(consume(node, "work_queue")) for node in nodes for _ in range(3)]
    for node in nodes:
        await asyncio.gather(*[node.send("work_queue", said(number)) for number in range(150)])
    for _ in consuming:
        await nodes[0].send("work_queue", said("stop"))
    received = await within(asyncio.gather(*consuming))
    assert Counter(number for numbers in received for number in numbers) == dict.fromkeys(range(150), 2)
    assert await drain(nodes[1], "work_queue") == []


async def test_receivers_cancelled_on_both_nodes_lose_nothing_of_a_work_queue(nodes: Nodes) -> None:
    received: list[int] = []
    for number in range(60):
        receiving = [asyncio.create_task(node.receive("work_queue")) for node in nodes]
        sending = asyncio.create_task(nodes[number % 2].send("work_queue", said(number)))
        for _ in range(number % 11):
            await asyncio.sleep(0)
        for receiver in receiving:
            receiver.cancel()
        await within(asyncio.wait([*receiving, sending]))
        received += [receiver.result()["text"] for receiver in receiving if not receiver.cancelled()]
    while len(received) < 60:
        done, pending = await within(
            asyncio.wait(
                [asyncio.create_task(node.receive("work_queue")) for node in nodes],
                return_when=asyncio.FIRST_COMPLETED,
            )
        )
        for receiver in pending:
            receiver.cancel()
        await within(asyncio.wait(done | pending))
        received += [receiver.result()["text"] for receiver in done | pending if not receiver.cancelled()]
    assert sorted(received) == list(range(60))


async def test_messages_sent_before_anyone_received_wait_for_the_first_node_that_does(nodes: Nodes) -> None:
    a, b = nodes
    for number in range(20):
        await a.send("work_queue", said(number))
    assert texts(await drain(b, "work_queue")) == list(range(20))


@pytest.mark.parametrize("kind", ["own_channel", "group", "work_queue"])
async def test_message_of_5_megabytes_between_small_ones_keeps_its_place(nodes: Nodes, kind: str) -> None:
    a, b = nodes
    channel = "work_queue" if kind == "work_queue" else await b.new_channel()
    await b.group_add("room", channel)
    sent = ["one", "two", "x" * 5_000_000, "three", b"y" * 5_000_000, "four"]
    for text in sent:
        await (a.group_send("room", said(text)) if kind == "group" else a.send(channel, said(text)))
    assert texts(await drain(b, channel)) == sent


async def test_messages_of_two_nodes_are_received_in_the_order_of_sending(nodes: Nodes) -> None:
    a, b = nodes
    for channel in (await b.new_channel(), "work_queue"):
        await a.group_add("room", channel)
        for number in range(40):
            node = nodes[number % 2]
            await (node.group_send("room", said(number)) if number % 4 < 2 else node.send(channel, said(number)))
        assert texts(await drain(b, channel)) == list(range(40))
        await b.group_discard("room", channel)


async def test_sending_to_a_node_that_was_closed_is_fine(nodes: Nodes) -> None:
    a, b = nodes
    channel, remaining = await b.new_channel(), await a.new_channel()
    for member in (channel, remaining):
        await a.group_add("room", member)
    await b.close()
    await a.send(channel, said("to nobody"))
    await a.group_send("room", said("hello"))
    await a.group_discard("room", channel)
    assert texts(await drain(a, remaining)) == ["hello"]


async def test_work_queue_of_a_node_that_was_closed_goes_to_the_other(nodes: Nodes) -> None:
    a, b = nodes
    for number in range(20):
        await a.send("work_queue", said(number))
    received = [await within(b.receive("work_queue")) for _ in range(5)]
    await b.close()
    received += await drain(a, "work_queue")
    assert texts(received) == list(range(20))


async def test_flush_by_one_node_empties_the_groups_and_channels_of_the_other(nodes: Nodes) -> None:
    a, b = nodes
    own = await b.new_channel()
    for member in (own, "work_queue"):
        await b.group_add("room", member)
    await b.group_send("room", said("before"))
    await a.flush()
    await b.group_send("room", said("to nobody"))
    assert await drain(b, "work_queue") == []
    assert await drain(b, own) == []
    await b.group_add("room", own)
    await a.group_send("room", said("after"))
    assert texts(await drain(b, own)) == ["after"]
