"""Messages around the size that a notification takes, and the smallest and largest ones."""

import asyncio
from typing import Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgchannels import InvalidName, MessageLayer, MessageTooLarge
from pgchannels.codec import LARGEST_MESSAGE_BYTES
from pgchannels.database import migrations
from tests.support.roads import node_of
from tests.support.waiting import until, within

LARGEST_INLINE_BYTES: Final = 5_500
SIZES: Final = range(LARGEST_INLINE_BYTES - 2, LARGEST_INLINE_BYTES + 3)
MOST_NOTIFIED_BYTES: Final = 7_999  # PostgreSQL takes less than 8,000
LONGEST_NAME: Final = 99
EXTREMES: Final[list[object]] = [b"", b"x", None, "", 0, [], {}]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Heard(list[str]):
    """The notifications of messages that the only node was sent, as another listener on its channel hears them."""

    def note(self, _connection: object, _pid: int, _channel: str, text: object) -> None:
        if not str(text).startswith("p "):
            self.append(str(text))


@pytest.fixture
async def heard(layer: MessageLayer, connection: Connection) -> Heard:
    """What the node of the layer is told."""
    notes = Heard()
    await connection.add_listener(await connection.fetchval("SELECT id::text FROM pgchannels.node"), notes.note)
    return notes


def payload_of(envelope_bytes: int) -> bytes:
    """A payload whose envelope has this size: one byte of the envelope's, three of msgpack's."""
    return b"x" * (envelope_bytes - 4)


def is_inline(notification: str) -> bool:
    """Whether the payload of the last message is in the notification; the head alone ends with a space."""
    return not notification.endswith(" ")


@pytest.mark.parametrize("topic", ["t", "t" * LONGEST_NAME])
async def test_topic_keeps_its_order_around_the_largest_inline_payload(
    layer: MessageLayer, heard: Heard, topic: str
) -> None:
    async with layer.subscribe(topic) as subscription:
        for size in SIZES:
            payloads = ["before", payload_of(size), "after"]
            for payload in payloads:
                await layer.publish(topic, payload)
            assert [(await within(anext(subscription))).payload for _ in payloads] == payloads
    await until(lambda: _has(heard, 3 * len(SIZES)))
    for notification, size in zip(heard[1::3], SIZES, strict=True):
        assert is_inline(notification) is (size <= LARGEST_INLINE_BYTES)
    assert all(is_inline(notification) for notification in heard[0::3] + heard[2::3])


async def test_channel_keeps_its_order_around_the_largest_inline_payload(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    name = (await layer.new_channel("c")).partition("!")[0]
    channel = f"{name}!{'c' * (LONGEST_NAME - len(name) - 1)}"
    notes = Heard()
    listening = "SELECT id::text FROM pgchannels.node WHERE name = $1"
    await connection.add_listener(await connection.fetchval(listening, name.removeprefix("c.")), notes.note)
    for size in SIZES:
        payloads = ["before", payload_of(size), "after"]
        for payload in payloads:
            await other_layer.send(channel, payload)
        assert [await within(layer.receive(channel)) for _ in payloads] == payloads
    await until(lambda: _has(notes, 3 * len(SIZES)))
    for notification, size in zip(notes[1::3], SIZES, strict=True):
        assert is_inline(notification) is (size <= LARGEST_INLINE_BYTES)


@pytest.mark.parametrize("name", ["q", "q" * LONGEST_NAME])
async def test_queue_keeps_its_order_around_the_largest_inline_payload_and_is_told_of_by_name(
    layer: MessageLayer, heard: Heard, name: str
) -> None:
    payloads = [payload for size in SIZES for payload in ("before", payload_of(size), "after")]
    for payload in payloads:
        await layer.send(name, payload)
    assert [await within(layer.receive(name)) for _ in payloads] == payloads
    receiving = asyncio.create_task(layer.receive(name))
    tokens = node_of(layer).receiver.queues._taker.tokens
    await until(lambda: asyncio.sleep(0, tokens.get(f"queue:asgi:{name}", 0) > 0))  # it is idle
    await layer.send(name, "told")
    assert await within(receiving) == "told"
    await until(lambda: _has(heard, 1))
    assert set(heard) == {f"q queue:asgi:{name}"}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["t", "u" * LONGEST_NAME]), st.integers(4, 9_000)), min_size=1, max_size=40))
async def test_batch_of_any_sizes_comes_in_order_in_notifications_that_are_short_enough(
    layer: MessageLayer, heard: Heard, sent: list[tuple[str, int]]
) -> None:
    heard.clear()
    async with layer.subscribe("t", "u" * LONGEST_NAME) as subscription:
        await layer.publish_many([(topic, payload_of(size)) for topic, size in sent])
        came = [await within(anext(subscription)) for _ in sent]
    assert [(message.topic, message.payload) for message in came] == [(topic, payload_of(size)) for topic, size in sent]
    await until(lambda: _has_told(heard, len(sent)))
    assert max(map(len, heard)) <= MOST_NOTIFIED_BYTES


async def test_small_messages_of_a_batch_share_notifications(layer: MessageLayer, heard: Heard) -> None:
    async with layer.subscribe("t", "u") as subscription:
        await layer.publish_many([(topic, b"x" * 200) for topic in ("t", "u") for _ in range(100)])
        for _ in range(200):
            await within(anext(subscription))
    await until(lambda: _has_told(heard, 200))
    assert len(heard) == 2 * 6


async def test_longest_names_fill_notifications_of_channels_and_no_more(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    name = (await layer.new_channel("c")).partition("!")[0]
    channel = f"{name}!{'c' * (LONGEST_NAME - len(name) - 1)}"
    for size in (0, 1, 2, 50, 100, 1_000, 2_700, LARGEST_INLINE_BYTES - 4):
        await asyncio.gather(*[other_layer.send(channel, b"x" * size) for _ in range(150)])
        assert [await within(layer.receive(channel)) for _ in range(150)] == [b"x" * size] * 150


async def test_smallest_payloads_come_as_they_were_by_every_road(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    channel = await layer.new_channel()
    async with layer.subscribe("room") as subscription:
        for payload in EXTREMES:
            await other_layer.publish("room", payload)
            await other_layer.send(channel, payload)
            await other_layer.send("jobs", payload)
        assert [(await within(anext(subscription))).payload for _ in EXTREMES] == EXTREMES
    assert [await within(layer.receive(channel)) for _ in EXTREMES] == EXTREMES
    assert [await within(layer.receive("jobs")) for _ in EXTREMES] == EXTREMES


async def test_largest_message_keeps_its_place(layer: MessageLayer, other_layer: MessageLayer) -> None:
    largest = bytes(LARGEST_MESSAGE_BYTES - 6)  # msgpack says in five bytes that bytes follow and how many, one is ours
    async with other_layer.subscribe("room") as subscription:
        await layer.publish_many([("room", payload) for payload in ("before", largest, "after")])
        payloads = [(await within(anext(subscription))).payload for _ in range(3)]
    assert payloads[1] == largest
    assert payloads[::2] == ["before", "after"]


async def test_message_of_one_byte_too_many_is_refused_before_anything_is_sent(
    layer: MessageLayer, connection: Connection
) -> None:
    too_large = bytes(LARGEST_MESSAGE_BYTES - 5)
    channel = await layer.new_channel()
    for refused in (
        layer.publish("room", too_large),
        layer.publish_many([("room", "small"), ("room", too_large)]),
        layer.send(channel, too_large),
        layer.send("jobs", too_large),
    ):
        with pytest.raises(MessageTooLarge, match="67,108,865 bytes, 67,108,864 are the most") as raised:
            await refused
        assert not raised.value.may_have_been_sent
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.message") == 0


async def test_longest_names_work_and_longer_ones_are_refused(owner_url: str) -> None:
    schema = "s" * 63
    await migrations.upgrade(owner_url, schema=schema)
    async with MessageLayer(owner_url, prefix="p" * 50, schema=schema) as layer:
        channel = await layer.new_channel("c" * 65)
        topic, queue = "t" * LONGEST_NAME, "q" * LONGEST_NAME
        assert len(channel) == LONGEST_NAME
        async with layer.subscribe(topic) as subscription:
            for payload in (b"inline", bytes(5_490), bytes(9_000)):
                await layer.publish(topic, payload)
                await layer.send(channel, payload)
                await layer.send(queue, payload)
                assert (await within(anext(subscription))).payload == payload
                assert await within(layer.receive(channel)) == payload
                assert await within(layer.receive(queue)) == payload
        for refused in (layer.publish(f"{topic}t", 1), layer.send(f"{channel}c", 1), layer.send(f"{queue}q", 1)):
            with pytest.raises(InvalidName, match="1 to 99"):
                await refused
        with pytest.raises(InvalidName, match="at most 65"):
            await layer.new_channel("c" * 66)


async def _has(heard: Heard, count: int) -> bool:
    return len(heard) >= count


async def _has_told(heard: Heard, messages: int) -> bool:
    return sum((len(notification.split(" ")) - 3) // 3 for notification in heard) >= messages
