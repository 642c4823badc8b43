"""Messages that wait for the database take no more memory than they may, and keep their order."""

import asyncio

import pytest

from pgchannels import DatabaseUnavailable, LayerClosed, MessageLayer
from pgchannels.sending import backlog
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import steps, within

ROOM = 200_000
SIZE = 10_000


@pytest.fixture(autouse=True)
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes may wait, and few go into a batch."""
    monkeypatch.setattr(backlog, "_MOST_BYTES_WAITING", ROOM)
    monkeypatch.setattr(backlog, "_BYTES_PER_BATCH", 4 * SIZE)


def payload(number: int, size: int = SIZE) -> bytes:
    """A payload of a size that begins with its number."""
    return number.to_bytes(4, "big") + bytes(size - 4)


async def test_waiting_messages_take_no_more_than_their_room_and_keep_their_order(
    proxy: Proxy, layer: MessageLayer
) -> None:
    async with MessageLayer(proxy.url, heartbeat=30) as sender, layer.subscribe("room") as subscription:
        waiting = node_of(sender).sender._writer._backlog
        await sender.publish("room", payload(0))
        proxy.freeze()
        sends = [
            asyncio.create_task(
                sender.publish_many([("room", payload(number)), ("room", payload(number + 1))])
                if number % 10 == 1
                else sender.publish("room", payload(number))
            )
            for number in range(1, 100)
            if number % 10 != 2
        ]
        await steps(3)
        proxy.restore()
        most = 0
        while not all(send.done() for send in sends):
            most = max(most, waiting._waiting_bytes)
            await asyncio.sleep(0)
        assert ROOM / 2 < most <= ROOM
        received = [(await within(anext(subscription))).payload for _ in range(100)]
        assert [int.from_bytes(one[:4], "big") for one in received] == list(range(100))


async def test_batch_of_one_call_that_needs_more_room_than_there_is_is_sent_bit_by_bit(layer: MessageLayer) -> None:
    most, waiting = 0, node_of(layer).sender._writer._backlog
    async with layer.subscribe("room") as subscription:
        sending = asyncio.create_task(layer.publish_many([("room", payload(number)) for number in range(100)]))
        while not sending.done():
            most = max(most, waiting._waiting_bytes)
            await asyncio.sleep(0)
        assert sending.result() == sorted(sending.result())
        received = [(await within(anext(subscription))).payload[:4] for _ in range(100)]
    assert most <= ROOM
    assert received == [payload(number)[:4] for number in range(100)]


async def test_message_greater_than_all_the_room_is_sent_when_nothing_else_waits(layer: MessageLayer) -> None:
    sends = [layer.publish("room", payload(1)), layer.publish("room", payload(2, 2 * ROOM)), layer.publish("room", 3)]
    positions = await within(asyncio.gather(*sends))
    assert positions == sorted(positions)


async def test_call_that_finds_no_room_in_time_says_how_much_of_it_was_sent(proxy: Proxy) -> None:
    async with MessageLayer(proxy.url, heartbeat=30, send_timeout=1) as sender:
        await sender.publish("room", payload(0))
        proxy.freeze()
        first = [asyncio.create_task(sender.publish("room", payload(1))) for _ in range(30)]
        many = asyncio.create_task(sender.publish_many([("room", payload(2))] * 3))
        outcomes = await within(asyncio.gather(*first, many, return_exceptions=True))
        assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailable}
        assert "bytes of messages have waited" in str(outcomes[-1])
        proxy.restore()
        await within(sender.publish("room", "after"))


async def test_callers_that_wait_for_room_are_told_when_the_layer_closes(proxy: Proxy) -> None:
    layer = MessageLayer(proxy.url, heartbeat=30, send_timeout=1)
    await layer.open()
    await layer.publish("room", payload(0))
    proxy.freeze()
    sends = [asyncio.create_task(layer.publish("room", payload(1))) for _ in range(30)]
    await steps(3)
    closing = asyncio.create_task(layer.close())
    outcomes = await within(asyncio.gather(*sends, return_exceptions=True))
    assert {type(outcome) for outcome in outcomes} <= {DatabaseUnavailable, LayerClosed}
    proxy.restore()
    await within(closing)
