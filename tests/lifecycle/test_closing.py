"""`close` while messages are on their way."""

import asyncio
import traceback
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from pgchannels import LayerClosed, MessageLayer
from tests.support.connections import has_connections
from tests.support.waiting import steps, until, within

PUBLISHERS = 50


@dataclass
class Fates:
    """What became of the messages of all publishers."""

    sent: set[str] = field(default_factory=set)
    not_sent: set[str] = field(default_factory=set)
    uncertain: set[str] = field(default_factory=set)

    async def publish_until_closed(self, layer: MessageLayer, publisher: int, *, busy: asyncio.Event) -> None:
        """Publish without a pause; `busy` is set when many have been sent."""
        number = 0
        while True:
            name = f"{publisher}.{number}"
            try:
                await layer.publish("room", name)
            except LayerClosed as error:
                (self.uncertain if error.may_have_been_sent else self.not_sent).add(name)
                return
            self.sent.add(name)
            number += 1
            if len(self.sent) > 10 * PUBLISHERS:
                busy.set()


@pytest.mark.parametrize("closers", [1, 3])
async def test_closing_tells_the_truth_about_every_message(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", closers: int
) -> None:
    layer, fates, busy = MessageLayer(database_url), Fates(), asyncio.Event()
    await layer.open()
    receiving = [asyncio.create_task(receive_all(layer)), asyncio.create_task(layer.receive("jobs"))]
    receiving.append(asyncio.create_task(layer.receive(await layer.new_channel())))
    publishing = [
        asyncio.create_task(fates.publish_until_closed(layer, number, busy=busy)) for number in range(PUBLISHERS)
    ]
    await within(busy.wait())
    await within(asyncio.gather(*[layer.close() for _ in range(closers)]))
    await within(asyncio.gather(*publishing))
    ends = await within(asyncio.gather(*receiving, return_exceptions=True))
    assert [type(end) for end in ends] == [LayerClosed] * 3
    await layer.close()  # nothing happens
    await until(lambda: has_connections(connection, 0))
    await require_told_truly(layer, fates)


async def test_closing_tells_other_loops_the_truth_about_their_messages(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer, fates, busy = MessageLayer(database_url), Fates(), asyncio.Event()
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def publish_elsewhere(publisher: int) -> None:
        asyncio.run(publish_until_stopped(publisher))

    async def publish_until_stopped(publisher: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"{publisher}.{number}"
            try:
                await layer.publish("room", name)
            except LayerClosed as error:
                (fates.uncertain if error.may_have_been_sent else fates.not_sent).add(name)
            else:
                fates.sent.add(name)
            number += 1
            if len(fates.sent) > 100:
                loop.call_soon_threadsafe(busy.set)

    await layer.open()
    publishing = [asyncio.create_task(asyncio.to_thread(publish_elsewhere, number)) for number in range(4)]
    for _ in range(5):
        await within(busy.wait())
        await within(layer.close())
        busy.clear()
        await within(busy.wait())
        await within(layer.open())
    stop.set()
    await within(asyncio.gather(*publishing))
    await layer.close()
    await until(lambda: has_connections(connection, 0))
    await require_told_truly(layer, fates)


async def test_each_of_many_receivers_ends_with_an_error_of_its_own(database_url: str) -> None:
    layer = MessageLayer(database_url)
    await layer.open()
    channel = await layer.new_channel()
    await layer.send("jobs", "so that the queue is hosted")
    await within(layer.receive("jobs"))
    async with AsyncExitStack() as stack:
        subscriptions = [await stack.enter_async_context(layer.subscribe("room")) for _ in range(100)]
        of_one = await stack.enter_async_context(layer.subscribe("room"))
        calls = [anext(subscription) for subscription in subscriptions]
        for _ in range(100):
            calls += [anext(of_one), layer.receive(channel), layer.receive("jobs")]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await steps(3)
        await layer.close()
        outcomes = await within(asyncio.gather(*waiting, return_exceptions=True))
    errors = [outcome for outcome in outcomes if isinstance(outcome, LayerClosed)]
    assert len(set(map(id, errors))) == len(outcomes) == 400
    assert max(len(traceback.extract_tb(error.__traceback__)) for error in errors) < 15


async def test_layer_is_opened_again_after_each_closing(database_url: str) -> None:
    layer = MessageLayer(database_url)
    for number in range(5):
        async with layer, layer.subscribe("room") as subscription:
            await layer.publish("room", number)
            assert (await within(anext(subscription))).payload == number


async def test_opening_waits_for_the_closing_before_it(database_url: str) -> None:
    layer = MessageLayer(database_url)
    await layer.open()
    _, *_ = await within(asyncio.gather(layer.close(), layer.open()))
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", "open")
        assert (await within(anext(subscription))).payload == "open"
    await layer.close()


async def receive_all(layer: MessageLayer) -> None:
    """Receive until the layer is closed."""
    async with layer.subscribe("room", capacity=1_000_000) as subscription:
        async for _ in subscription:
            pass


async def require_told_truly(layer: MessageLayer, fates: Fates) -> None:
    """What was sent is in the log, what was not sent is not, and nothing twice."""
    async with layer:
        history: list[Any] = [message.payload for message in await layer.history("room", limit=1_000_000)]
    assert len(history) == len(set(history))
    assert fates.sent <= set(history) <= fates.sent | fates.uncertain
