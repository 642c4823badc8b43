"""What fails ends for whom it failed, and nobody else; a node that has failed is replaced by whoever opens it again."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import asyncpg
import pytest

from pgchannels import DatabaseRefused, Gap, GapReason, LayerClosed, MessageLayer, PgChannelsError, Position
from pgchannels.django import PostgresChannelLayer
from pgchannels.process.node import Node
from pgchannels.receiving.replay import Cursor
from pgchannels.sending.outgoing import Outgoing
from pgchannels.subscription import Subscription
from tests.support.roads import node_of
from tests.support.waiting import until, within


class Defect(Exception):
    """What nobody expects."""


def fail(*_: object, **__: object) -> NoReturn:
    """A defect of pgchannels."""
    raise Defect


async def fail_later() -> None:
    """A part of a node with a defect."""
    fail()


def beyond_64_bits(cursor: Cursor) -> None:
    """The database cannot even be asked."""
    cursor.positions = {"topic:asgi:alone": 2**64}


def defective(cursor: Cursor) -> None:
    """An error of Python in the middle of a reading."""
    cursor.take = fail  # type: ignore[method-assign]


@pytest.mark.parametrize(("spoil", "error"), [(beyond_64_bits, DatabaseRefused), (defective, LayerClosed)])
async def test_replay_that_fails_ends_its_subscription_with_an_error_and_no_other(
    layer: MessageLayer, spoil: Callable[[Cursor], None], error: type[PgChannelsError]
) -> None:
    since = await layer.publish("room", 0)
    await layer.publish("room", 1)
    subscriptions = [layer.subscribe("room", since=since) for _ in range(3)]
    async with layer.subscribe("room") as live, subscriptions[0], subscriptions[1] as bad, subscriptions[2]:
        assert bad._cursor is not None
        spoil(bad._cursor)
        reading = [asyncio.create_task(received(subscription)) for subscription in subscriptions]
        outcomes = await within(asyncio.gather(*reading, return_exceptions=True))
        assert [outcomes[0], type(outcomes[1]), outcomes[2]] == [1, error, 1]
        with pytest.raises(error):
            await within(anext(bad))
        await layer.publish("room", 2)
        assert [await within(received(one)) for one in (live, subscriptions[0], subscriptions[2])] == [2, 2, 2]


async def received(subscription: Subscription) -> Any:
    """The next payload."""
    return (await anext(subscription)).payload


async def test_thousand_clients_with_impossible_positions_are_refused_and_with_those_of_other_logs_are_served(
    layer: MessageLayer,
) -> None:
    await layer.publish("room", "old")
    absurd = [Position(1023, number) for number in range(1000)]
    for position in absurd:
        with pytest.raises(PgChannelsError, match="since="):
            layer.subscribe("room", since=f"{position.epoch + 1}-{position.offset}")
    gaps: list[Gap] = []
    subscriptions = [layer.subscribe("room", since=position, on_gap=gaps.append) for position in absurd]
    async with layer.subscribe("room") as live:
        reading = [asyncio.create_task(first_of(subscription)) for subscription in subscriptions]
        await layer.publish("room", "live")
        assert await within(received(live)) == "live"
        assert await within(asyncio.gather(*reading)) == ["old"] * 1000
    assert gaps == [Gap(GapReason.CRASH, None)] * 1000


async def first_of(subscription: Subscription) -> Any:
    """The first payload."""
    async with subscription:
        return await received(subscription)


class BrokenRecipient:
    """Fails whatever it is told."""

    put = lose = staticmethod(fail)


async def test_recipient_that_fails_keeps_nothing_from_the_others(
    layer: MessageLayer, caplog: pytest.LogCaptureFixture
) -> None:
    router = node_of(layer).receiver.router
    async with layer.subscribe("room") as subscription:
        address = "topic:asgi:room"
        broken, others = BrokenRecipient(), dict(router._routes[address].beginning)
        router._routes[address].beginning.clear()
        router.add(address, "broken", broken, after=0)
        for key, (after, recipient) in others.items():
            router.add(address, key, recipient, after=after)
        for number in range(3):
            await layer.publish("room", number)
            assert await within(received(subscription)) == number
        router.lose(Gap(GapReason.CRASH, None))
        with pytest.raises(PgChannelsError):
            await within(anext(subscription))
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


@pytest.mark.parametrize("part", ["a part", "the writer"])
async def test_node_that_has_failed_ends_its_receivers_and_is_replaced_by_open(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]", part: str
) -> None:
    node = node_of(layer)
    async with layer.subscribe("room") as subscription:
        receiving = asyncio.create_task(layer.receive(await layer.new_channel()))
        await break_down(node, part)
        for wait in (receiving, asyncio.ensure_future(anext(subscription))):
            with pytest.raises(LayerClosed, match="open it again") as ended:
                await within(wait)
            assert isinstance(ended.value.__cause__, Defect)
    await within(layer.publish("room", "sent by others meanwhile"))
    await within(layer.open())
    assert node_of(layer) is not node
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", "hi")
        assert await within(received(subscription)) == "hi"
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 1


async def break_down(node: Node, part: str) -> None:
    """Return when a part of a node has failed."""
    if part == "the writer":
        node.sender._writer._wait_for_work = fail  # type: ignore[method-assign]
        await node.sender.send(Outgoing("topic:asgi:elsewhere", None, b""))
    else:
        node._tasks.start(fail_later(), name="defect")
    await until(lambda: asyncio.sleep(0, node.has_failed))


async def test_node_that_has_failed_is_replaced_by_the_next_use_in_django(database_url: str) -> None:
    layer = PostgresChannelLayer(database_url)
    lost = await layer.new_channel()
    node = node_of(layer)
    await break_down(node, "a part")
    await within(layer.group_send("room", {"type": "nobody"}))
    channel = await within(layer.new_channel())
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "hi"})
    assert await within(layer.receive(channel)) == {"type": "hi"}
    with pytest.raises(LayerClosed):
        await within(layer.receive(lost))
    await layer.close()


async def test_command_with_a_defect_costs_the_channels_of_its_node_a_gap_and_not_the_node(
    layer: MessageLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = node_of(layer).receiver
    channel = await layer.new_channel()
    gaps: list[Gap] = []
    receiving = asyncio.create_task(layer.receive(channel, on_gap=gaps.append))
    await asyncio.sleep(0)
    monkeypatch.setattr(receiver._commands, "obey", fail)
    await node_of(layer).sender.join("room", channel)
    await layer.send(channel, "after")
    assert await within(receiving) == "after"
    assert gaps == [Gap(GapReason.UNREADABLE, None)]
