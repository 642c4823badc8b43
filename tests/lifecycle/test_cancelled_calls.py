"""Each verb of the plain API, cancelled at every step: nothing leaks, nothing is lost, order is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer, Subscription
from tests.lifecycle.conftest import Probe
from tests.support.connections import connections_to_this_database
from tests.support.waiting import until, within

from .steps import attempts

CONNECTIONS_OF_A_NODE = 3

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def test_cancelled_publish_is_sent_once_or_not_at_all_and_in_order(
    layer: MessageLayer, probe: Probe, connection: Connection
) -> None:
    surely_sent = []
    async with layer.subscribe("room") as subscription:
        async for attempt in attempts(lambda number: layer.publish("room", number)):
            if not attempt.was_cancelled:
                surely_sent.append(attempt.number)
            await probe()
        received = await all_before_the_last(subscription, layer)
    assert await connections_to_this_database(connection) == CONNECTIONS_OF_A_NODE
    assert received == sorted(set(received))
    assert set(surely_sent) <= set(received)
    assert [message.payload for message in await layer.history("room")] == [*received, "last"]


async def test_cancelled_publish_of_many_is_sent_once_or_not_at_all_and_in_order(
    layer: MessageLayer, probe: Probe
) -> None:
    surely_sent: list[list[int]] = []

    async def publish(number: int) -> None:
        await layer.publish_many([("room", [number, part]) for part in range(3)])

    async with layer.subscribe("room") as subscription:
        async for attempt in attempts(publish):
            if not attempt.was_cancelled:
                surely_sent += [[attempt.number, part] for part in range(3)]
            await probe()
        received = await all_before_the_last(subscription, layer)
    assert received == sorted(received)
    assert len(received) == len(set(map(tuple, received)))
    assert all(pair in received for pair in surely_sent)


async def test_cancelled_publish_through_a_borrowed_sender_is_sent_once_or_not_at_all_and_in_order(
    database_url: str, connection: Connection
) -> None:
    borrower = MessageLayer(database_url)
    publishing = attempts(lambda number: borrower.publish("room", number))
    surely_sent = [attempt.number async for attempt in publishing if not attempt.was_cancelled]
    await borrower.publish("room", "last")
    assert await connections_to_this_database(connection) == 1
    async with borrower:
        *sent, last = [message.payload for message in await borrower.history("room")]
    assert last == "last"
    assert sent == sorted(set(sent))
    assert set(surely_sent) <= set(sent)


async def test_cancelled_subscribing_and_unsubscribing_leaves_no_subscription(
    database_url: str, connection: Connection
) -> None:
    async def subscribe(number: int) -> list[int]:
        async with layer.subscribe(f"topic{number}", "news") as subscription:
            await layer.publish_many([(f"topic{number}", number), ("news", number)])
            received: list[int] = []
            while received.count(number) < 2:  # an earlier call's message to the news may come first
                received.append((await anext(subscription)).payload)
            return received

    async with MessageLayer(database_url, heartbeat=0.1) as layer:
        async for attempt in attempts(subscribe):
            assert attempt.was_cancelled or attempt.result == sorted(attempt.result or [])
        await until(lambda: hosts_no_topic(connection))
        assert await connections_to_this_database(connection) == CONNECTIONS_OF_A_NODE


async def test_message_is_not_lost_when_its_subscriber_is_cancelled(layer: MessageLayer, probe: Probe) -> None:
    async with layer.subscribe("room") as subscription:
        await require_nothing_lost(
            receive=lambda: payload_of_next(subscription),
            send=lambda number: layer.publish("room", number),
            probe=probe,
        )


@pytest.mark.parametrize("already_received", [0, 499], ids=["first page", "next page"])
async def test_message_is_not_lost_when_a_replaying_subscriber_is_cancelled(
    layer: MessageLayer, probe: Probe, already_received: int
) -> None:
    start = await layer.publish("room", "start")
    await layer.publish_many([("room", number) for number in range(600)])
    async with layer.subscribe("room", since=start) as subscription:
        received = [await payload_of_next(subscription) for _ in range(already_received)]
        async for attempt in attempts(lambda _: payload_of_next(subscription)):
            if not attempt.was_cancelled:
                received.append(attempt.result)
            await probe()
        received += await all_before_the_last(subscription, layer)
    assert received == list(range(600))


async def test_message_is_not_lost_when_the_receiver_of_a_channel_is_cancelled(
    layer: MessageLayer, probe: Probe
) -> None:
    channel = await layer.new_channel()
    await require_nothing_lost(
        receive=lambda: layer.receive(channel), send=lambda number: layer.send(channel, number), probe=probe
    )


async def test_message_is_not_lost_when_the_receiver_of_a_queue_is_cancelled(layer: MessageLayer, probe: Probe) -> None:
    await require_nothing_lost(
        receive=lambda: layer.receive("jobs"), send=lambda number: layer.send("jobs", number), probe=probe
    )


async def test_message_in_a_queue_goes_to_another_node_when_its_receiver_is_cancelled(
    database_url: str, other_layer: MessageLayer
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1) as layer:
        await require_nothing_lost(
            receive=lambda: layer.receive("jobs"),
            receive_what_was_left=lambda: other_layer.receive("jobs"),
            send=lambda number: other_layer.send("jobs", number),
        )


async def test_cancelled_send_is_sent_once_or_not_at_all_and_in_order(
    layer: MessageLayer, other_layer: MessageLayer, probe: Probe
) -> None:
    for receiver, channel in (
        (layer, await layer.new_channel()),
        (other_layer, await other_layer.new_channel()),
        (other_layer, "jobs"),
    ):
        surely_sent = []
        async for attempt in attempts(partial(layer.send, channel)):
            if not attempt.was_cancelled:
                surely_sent.append(attempt.number)
            await probe()
        await layer.send(channel, "last")
        received: list[Any] = []
        while not received or received[-1] != "last":
            received.append(await within(receiver.receive(channel)))
        assert received[:-1] == sorted(set(received[:-1]))
        assert set(surely_sent) <= set(received)


async def test_cancelled_history_and_new_channel_leave_nothing(layer: MessageLayer, probe: Probe) -> None:
    position = await layer.publish("room", 1)
    async for read in attempts(lambda _: layer.history("room")):
        assert read.was_cancelled or [message.position for message in read.result or ()] == [position]
        await probe()
    async for read in attempts(lambda _: layer.history("room", since=position)):
        assert read.was_cancelled or read.result == []
        await probe()
    async for _ in attempts(lambda _: layer.new_channel()):
        await probe()


async def require_nothing_lost(
    *,
    receive: Callable[[], Coroutine[Any, Any, object]],
    send: Callable[[int], Coroutine[Any, Any, object]],
    receive_what_was_left: Callable[[], Coroutine[Any, Any, object]] | None = None,
    probe: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Cancel a receiver at every step, each time while one message is sent: all are received, in order."""
    sent: list[int] = []
    received: list[object] = []

    async def receive_what_is_sent(number: int) -> None:
        sent.append(number)
        sending.append(asyncio.create_task(send(number)))
        received.append(await receive())

    sending: list[asyncio.Task[object]] = []
    async for _ in attempts(receive_what_is_sent):
        await asyncio.gather(*sending)
        if len(received) < len(sent):
            received.append(await within((receive_what_was_left or receive)()))
        if probe is not None:
            await probe()
    assert received == sent


async def payload_of_next(subscription: Subscription) -> object:
    """What the next message holds."""
    payload: object = (await within(anext(subscription))).payload
    return payload


async def all_before_the_last(subscription: Subscription, layer: MessageLayer) -> list[Any]:
    """Publish one more message, and return the payloads of those before it."""
    last = await layer.publish("room", "last")
    payloads = []
    while (message := await within(anext(subscription))).position != last:
        payloads.append(message.payload)
    return payloads


async def hosts_no_topic(connection: Connection) -> bool:
    """Whether no node is subscribed to a topic."""
    count: int = await connection.fetchval("SELECT count(*) FROM pgchannels.subscription WHERE address LIKE 'topic:%'")
    return count == 0
