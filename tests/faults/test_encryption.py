"""Sealed messages: who opens which, while keys change and while rows are moved."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Final, TypeAlias

import pytest

from pgchannels import Gap, GapReason, MessageLayer
from tests.support.roads import ROADS, Connection, deliver, node_of
from tests.support.waiting import within

OLD, NEW = "the old key", b"the new key"
Keys: TypeAlias = tuple[str | bytes, ...]
KEYS: Final[tuple[Keys, ...]] = ((), (OLD,), (OLD, NEW), (NEW, OLD), (NEW,))
ROTATION: Final = KEYS[1:]

by_each_road = pytest.mark.parametrize("road", ROADS)


@asynccontextmanager
async def layers_with(url: str, *all_keys: Keys) -> AsyncIterator[list[MessageLayer]]:
    """An open layer for each of these lists of keys."""
    layers = [MessageLayer(url, symmetric_encryption_keys=keys) for keys in all_keys]
    async with AsyncExitStack() as stack:
        await asyncio.gather(*[stack.enter_async_context(layer) for layer in layers])
        yield layers


@pytest.fixture
async def sealing(database_url: str) -> AsyncIterator[MessageLayer]:
    """An open layer with a key."""
    async with layers_with(database_url, (NEW,)) as [layer]:
        yield layer


def opens(sealed_with: Keys, keys: Keys) -> bool:
    """Whether a layer with `keys` reads what one with the others has sent; the first key seals."""
    return sealed_with[0] in keys if sealed_with else not keys


@by_each_road
async def test_receiver_reads_what_its_keys_open_and_is_told_of_the_rest(database_url: str, road: str) -> None:
    async with layers_with(database_url, *KEYS) as senders:
        for receiver, keys in zip(senders, KEYS, strict=True):
            before = node_of(receiver).receiver.payloads.unreadable
            readable = [number for number, sealed_with in enumerate(KEYS) if opens(sealed_with, keys)]
            async with ROADS[road](receiver) as way:
                for number, sender in enumerate(senders):
                    await way.send(sender, number)
                await way.send(receiver, "last")
                assert [await within(way.receive()) for _ in range(len(readable) + 1)] == [*readable, "last"]
                assert way.gaps == [Gap(GapReason.UNREADABLE, 1)] * (len(KEYS) - len(readable))
            assert node_of(receiver).receiver.payloads.unreadable - before == len(KEYS) - len(readable)


@by_each_road
async def test_key_is_replaced_step_by_step_while_messages_flow_both_ways(database_url: str, road: str) -> None:
    for before, after in pairwise(ROTATION):
        async with layers_with(database_url, before, after) as layers:
            for receiver in layers:
                async with ROADS[road](receiver) as way:
                    for number in range(10):
                        await way.send(layers[number % 2], number)
                    assert [await within(way.receive()) for _ in range(10)] == list(range(10))
            assert [node_of(layer).receiver.payloads.unreadable for layer in layers] == [0, 0]


async def test_what_was_sealed_before_the_key_was_replaced_is_read_until_the_key_is_removed(database_url: str) -> None:
    async with layers_with(database_url, (OLD,), (NEW, OLD), (NEW,)) as [before, meanwhile, afterwards]:
        for number in range(3):
            await before.publish("room", number)
        await meanwhile.publish("room", "new")
        assert [message.payload for message in await meanwhile.history("room")] == [0, 1, 2, "new"]
        assert [message.payload for message in await afterwards.history("room")] == ["new"]
        assert [node_of(layer).receiver.payloads.unreadable for layer in (meanwhile, afterwards)] == [0, 3]


async def test_row_moved_to_another_topic_does_not_open(sealing: MessageLayer, connection: Connection) -> None:
    await sealing.publish("room", "secret")
    await connection.execute("UPDATE pgchannels.message SET address = 'topic:asgi:elsewhere'")
    await sealing.publish("elsewhere", "genuine")
    async with sealing.subscribe("elsewhere", since="0-0", on_gap=lambda _: None) as subscription:
        assert (await within(anext(subscription))).payload == "genuine"
    assert [message.payload for message in await sealing.history("elsewhere")] == ["genuine"]
    assert node_of(sealing).receiver.payloads.unreadable == 2


@pytest.mark.parametrize("channel", [None, "queue:asgi:secrets", "secrets"])
async def test_row_moved_to_another_queue_does_not_open(
    sealing: MessageLayer, connection: Connection, channel: str | None
) -> None:
    await sealing.send("secrets", "secret")
    await connection.execute("UPDATE pgchannels.message SET address = 'queue:asgi:jobs', channel = $1", channel)
    await sealing.send("jobs", "genuine")
    gaps: list[Gap] = []
    assert await within(sealing.receive("jobs", on_gap=gaps.append)) == "genuine"
    assert gaps == [Gap(GapReason.UNREADABLE, 1)]
    assert node_of(sealing).receiver.payloads.unreadable == 1


async def test_row_moved_to_another_channel_or_road_does_not_open(
    sealing: MessageLayer, connection: Connection
) -> None:
    mine, yours = await sealing.new_channel(), await sealing.new_channel()
    await sealing.send(mine, "secret")
    [(address, envelope)] = await connection.fetch("SELECT address, payload FROM pgchannels.message")
    gaps: list[Gap] = []
    async with sealing.subscribe("room", on_gap=gaps.append) as subscription:
        for place, channel in ((address, yours), (address, None), ("topic:asgi:room", None), ("topic:asgi:room", mine)):
            await deliver(connection, place, channel, [envelope])
        await sealing.send(yours, "genuine")
        await sealing.publish("room", "genuine")
        assert await within(sealing.receive(yours, on_gap=gaps.append)) == "genuine"
        assert (await within(anext(subscription))).payload == "genuine"
    assert await within(sealing.receive(mine)) == "secret"
    assert node_of(sealing).receiver.payloads.unreadable == 4
