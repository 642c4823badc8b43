"""Receivers that end, or whose mailbox does, when they are woken and have not run yet; and several tasks on one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import asyncpg
import pytest

from pgchannels import LayerClosed, MessageLayer, Subscription
from pgchannels.django import PostgresChannelLayer
from tests.support.proxy import Proxy
from tests.support.roads import ROADS, Road
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MOST_TURNS: Final = 12  # of the loop, from the moment when a message may come until its receiver has it
WITHOUT_BEATS: Final = 60.0  # seconds: nothing else comes meanwhile


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[MessageLayer]:
    """A layer behind the proxy."""
    async with MessageLayer(proxy.url, heartbeat=WITHOUT_BEATS) as layer:
        yield layer


@pytest.fixture
async def road(request: pytest.FixtureRequest, behind: MessageLayer) -> AsyncIterator[Road]:
    async with ROADS[request.param](behind) as road:
        yield road


every_road = pytest.mark.parametrize("road", list(ROADS), indirect=True)


async def turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def bring(proxy: Proxy, road: Road, sender: MessageLayer, text: str) -> None:
    """Send a message and hold it back in front of its receiver; returns as it is let go."""
    content = text if road.address.startswith("queue:") else road.channel or f" {road.address} "
    proxy.freeze_at(content.encode())
    sending = asyncio.create_task(road.send(sender, text))
    await within(proxy.holding(content.encode()))
    await within(sending)
    proxy.restore()


async def outcome(call: "asyncio.Task[Any]") -> object:
    """What a call has received, or None when it was ended."""
    await within(asyncio.wait([call]))
    return None if call.cancelled() else call.result()


@every_road
async def test_message_whose_receiver_is_cancelled_as_it_is_woken_goes_to_the_other_task(
    proxy: Proxy, road: Road, layer: MessageLayer
) -> None:
    for turns in range(MOST_TURNS):
        first, second = (asyncio.create_task(road.receive()) for _ in range(2))
        await turn(3)
        await bring(proxy, road, layer, f"message {turns}")
        await turn(turns)
        first.cancel()
        if await outcome(first) is not None:
            await within(road.send(layer, f"message {turns}"))
        assert await within(second) == f"message {turns}"


@every_road
async def test_message_whose_receiver_is_cancelled_as_it_is_woken_stays_for_the_next_call(
    proxy: Proxy, road: Road, layer: MessageLayer
) -> None:
    for turns in range(MOST_TURNS):
        only = asyncio.create_task(road.receive())
        await turn(3)
        await bring(proxy, road, layer, f"message {turns}")
        await turn(turns)
        only.cancel()
        if await outcome(only) is None:
            assert await within(road.receive()) == f"message {turns}"


@every_road
async def test_each_message_goes_to_one_of_the_tasks_that_receive(road: Road, layer: MessageLayer) -> None:
    received: list[object] = []

    async def receive() -> None:
        while len(received) < 30:
            received.append(await road.receive())

    tasks = [asyncio.create_task(receive()) for _ in range(3)]
    for number in range(30):
        await road.send(layer, number)
    await within(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
    for task in tasks:
        task.cancel()
    assert received == list(range(30))


@pytest.mark.parametrize("missed", [0, 1, 2, 20])
async def test_each_message_since_a_position_goes_to_one_of_the_tasks_that_receive(
    layer: MessageLayer, missed: int
) -> None:
    since = await layer.publish("room", "before")
    for number in range(missed):
        await layer.publish("room", number)
    received: list[object] = []
    async with layer.subscribe("room", since=since) as subscription, asyncio.TaskGroup() as receiving:
        for _ in range(3):
            receiving.create_task(receive_until_none(received, subscription))
        for payload in [*range(missed, 2 * missed), None, None, None]:
            await layer.publish("room", payload)
    assert received == list(range(2 * missed))


async def receive_until_none(received: list[object], subscription: Subscription) -> None:
    while (message := await within(anext(subscription))).payload is not None:
        received.append(message.payload)


@pytest.mark.parametrize("is_since", [False, True], ids=["from now on", "since"])
async def test_calls_that_are_woken_as_their_subscription_ends_come_to_an_end(
    proxy: Proxy, behind: MessageLayer, layer: MessageLayer, is_since: bool
) -> None:
    for turns in range(MOST_TURNS):
        since = await layer.publish("room", "before") if is_since else None
        subscription = behind.subscribe("room", since=since)
        await subscription.__aenter__()
        calls = [asyncio.ensure_future(anext(subscription)) for _ in range(2)]
        await turn(3)
        proxy.freeze_at(b" topic:asgi:room ")
        await layer.publish("room", turns)
        await within(proxy.holding(b" topic:asgi:room "))
        proxy.restore()
        await turn(turns)
        await subscription.__aexit__(None, None, None)
        await within(asyncio.wait(calls))
        failures = [error for call in calls if (error := call.exception()) is not None]
        assert [call.result().payload for call in calls if call.exception() is None] in ([], [turns])
        assert [type(error) for error in failures] == [LayerClosed] * len(failures), failures


@pytest.fixture
async def crowd_behind(proxy: Proxy) -> AsyncIterator[PostgresChannelLayer]:
    """A layer of Channels behind the proxy."""
    layer = PostgresChannelLayer(proxy.url, heartbeat=WITHOUT_BEATS)
    yield layer
    await layer.close()


@pytest.fixture
async def crowd_beside(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """A layer of Channels as another process would have it."""
    layer = PostgresChannelLayer(database_url, heartbeat=WITHOUT_BEATS)
    await layer.new_channel()
    yield layer
    await layer.close()


def said(text: str) -> dict[str, str]:
    return {"type": "said", "text": text}


async def hold_all(proxy: Proxy, layer: PostgresChannelLayer, other: PostgresChannelLayer) -> None:
    """Wait until everything that was sent to a layer before now is held."""
    last = await layer.new_channel()
    await other.send(last, said("last"))
    await within(proxy.holding(last.encode()))


async def test_receiver_that_is_woken_as_a_flush_empties_its_mailbox_is_not_deaf_afterwards(
    proxy: Proxy, crowd_behind: PostgresChannelLayer, crowd_beside: PostgresChannelLayer, connection: Connection
) -> None:
    async def are_commands_sent() -> bool:
        sent: int = await connection.fetchval("SELECT count(*) FROM pgchannels.message WHERE channel IS NULL")
        return sent == 2  # to each node one

    channel = await crowd_behind.new_channel()
    await crowd_behind.group_add("room", channel)
    receiving = asyncio.create_task(crowd_behind.receive(channel))
    await turn(3)
    proxy.freeze("to_client", new_connections=False)
    await crowd_beside.send(channel, said("before"))
    flushing = asyncio.create_task(crowd_beside.flush())
    await until(are_commands_sent)
    await hold_all(proxy, crowd_behind, crowd_beside)
    proxy.restore()
    await within(flushing)
    await crowd_beside.send(channel, said("after"))
    assert await within(receiving) == said("after")


async def test_receiver_that_is_woken_as_its_channel_leaves_its_last_group_gets_all_that_is_sent_to_it(
    proxy: Proxy, crowd_behind: PostgresChannelLayer, crowd_beside: PostgresChannelLayer
) -> None:
    channel = await crowd_behind.new_channel()
    await crowd_behind.group_add("room", channel)
    receiving = asyncio.create_task(crowd_behind.receive(channel))
    await turn(3)
    proxy.freeze("to_client", new_connections=False)
    await crowd_beside.group_send("room", said("to the group"))
    await crowd_beside.group_discard("room", channel)
    await hold_all(proxy, crowd_behind, crowd_beside)
    proxy.restore()
    await crowd_beside.send(channel, said("to itself"))
    assert await within(receiving) == said("to the group")
    assert await within(crowd_behind.receive(channel)) == said("to itself")
