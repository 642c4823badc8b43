"""Messages around the size that a notification takes, and the smallest and largest ones."""

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import asyncpg
import pytest

from pgchannels import InvalidName, Message, MessageLayer, MessageTooLarge, Position
from pgchannels.codec import LARGEST_MESSAGE_BYTES
from pgchannels.database import migrations
from tests.waiting import until, within

MOST_NOTIFIED_BYTES: Final = 7_999  # PostgreSQL takes less than 8,000
LIMITS: Final = (7_998, 7_999, 8_000, 8_001)
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


def base64_bytes(envelope_bytes: int) -> int:
    """How long PostgreSQL's base64 is: four characters for each three bytes, and the end of a line for each 57."""
    return -(-envelope_bytes // 3) * 4 + envelope_bytes // 57


def envelope_bytes_for(total: int, head_bytes: int) -> int | None:
    """The size of an envelope whose notification takes this many bytes; there is none for most."""
    sizes = (size for size in range(5_000, 7_000) if head_bytes + base64_bytes(size) == total)
    return next(sizes, None)


def payload_of(envelope_bytes: int) -> bytes:
    """A payload whose envelope has this size: one byte of the envelope's, three of msgpack's."""
    return b"x" * (envelope_bytes - 4)


def head_bytes(address: str, channel: str, position: Position) -> int:
    """How much a notification takes without its body; the time has as many digits until the year 2286."""
    return len(f"m {position.to_id()} 1700000000000000 {address} {channel} ")


def is_inline(notification: str) -> bool:
    """Whether the payload is in the notification; the head alone ends with a space."""
    return not notification.endswith(" ")


def sizes_by_topic(total: int, position: Position) -> Iterator[tuple[str, int]]:
    """Topics, each with the size of an envelope with which a notification takes exactly `total` bytes."""
    for length in range(1, LONGEST_NAME + 1):
        topic = "t" * length
        if (size := envelope_bytes_for(total, head_bytes(f"topic:asgi:{topic}", "", position))) is not None:
            yield topic, size


async def require_as_long(connection: Connection, notification: str, envelope_bytes: int, total: int) -> None:
    """The notification would take `total` bytes with the payload in it, by PostgreSQL's own count."""
    head = re.match(r"m \d+ \d+ \S+ \S* ", notification)
    assert head is not None
    body = await connection.fetchval("SELECT octet_length(encode($1::bytea, 'base64'))", b"x" * envelope_bytes)
    assert len(head[0]) + body == total
    assert len(notification) in {len(head[0]), total}


@pytest.mark.parametrize("total", LIMITS)
async def test_topic_keeps_its_order_around_the_longest_notification(
    layer: MessageLayer, heard: Heard, connection: Connection, total: int
) -> None:
    sizes = dict(sizes_by_topic(total, await layer.publish("t", "the first id")))
    assert len(sizes) > LONGEST_NAME / 5
    async with layer.subscribe(*sizes) as subscription:
        for topic, size in sizes.items():
            payloads = ["before", payload_of(size), "after"]
            await layer.publish_many([(topic, payload) for payload in payloads])
            messages: list[Message] = [await within(anext(subscription)) for _ in payloads]
            assert [(message.topic, message.payload) for message in messages] == [(topic, p) for p in payloads]
    await until(lambda: _has(heard, 3 * len(sizes)))
    for notification, size in zip(heard[1::3], sizes.values(), strict=True):
        await require_as_long(connection, notification, size, total)
        assert is_inline(notification) is (total <= MOST_NOTIFIED_BYTES)
    assert all(is_inline(notification) for notification in heard[0::3] + heard[2::3])


@pytest.mark.parametrize("total", LIMITS)
async def test_channel_keeps_its_order_around_the_longest_notification(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection, total: int
) -> None:
    name = (await layer.new_channel("c")).partition("!")[0]
    listening = "SELECT id::text FROM pgchannels.node WHERE name = $1"
    notes = Heard()
    await connection.add_listener(await connection.fetchval(listening, name.removeprefix("c.")), notes.note)
    first = await other_layer.publish("room", "the first id")
    sizes: dict[str, int] = {}
    for length in range(1, LONGEST_NAME - len(name)):
        channel = f"{name}!{'c' * length}"
        head = head_bytes(f"node:asgi:{name.removeprefix('c.')}", channel, first)
        if (size := envelope_bytes_for(total, head)) is not None:
            sizes[channel] = size
    assert len(sizes) > 10
    for channel, size in sizes.items():
        payloads = ["before", payload_of(size), "after"]
        for payload in payloads:
            await other_layer.send(channel, payload)
        assert [await within(layer.receive(channel)) for _ in payloads] == payloads
    await until(lambda: _has(notes, 3 * len(sizes)))
    for notification, size in zip(notes[1::3], sizes.values(), strict=True):
        await require_as_long(connection, notification, size, total)
        assert is_inline(notification) is (total <= MOST_NOTIFIED_BYTES)


@pytest.mark.parametrize("name", ["q", "q" * LONGEST_NAME])
async def test_queue_keeps_its_order_around_the_longest_notification_and_is_told_of_by_name(
    layer: MessageLayer, heard: Heard, name: str
) -> None:
    position = await layer.publish("room", "the first id")
    head = head_bytes(f"queue:asgi:{name}", "", position)
    sizes = [size for size in range(5_000, 7_000) if head + base64_bytes(size) in range(LIMITS[0] - 4, LIMITS[-1] + 5)]
    payloads = [payload for size in sizes for payload in ("before", payload_of(size), "after")]
    for payload in payloads:
        await layer.send(name, payload)
    assert [await within(layer.receive(name)) for _ in payloads] == payloads
    await layer.send(name, "told")
    assert await within(layer.receive(name)) == "told"
    await until(lambda: _has(heard, 1))
    assert set(heard) == {f"q queue:asgi:{name}"}


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
            for payload in (b"inline", bytes(5_800), bytes(9_000)):
                await layer.publish(topic, payload)
                await layer.send(channel, payload)
                await layer.send(queue, payload)
                assert (await within(anext(subscription))).payload == payload
                assert await within(layer.receive(channel)) == payload
                assert await within(layer.receive(queue)) == payload
        for refused in (layer.publish(f"{topic}t", 1), layer.send(f"{channel}c", 1), layer.send(f"{queue}q", 1)):
            with pytest.raises(InvalidName, match="1 to 99"):
                await refused
        with pytest.raises(InvalidName, match="1 to 99"):
            await layer.new_channel("c" * 66)


async def _has(heard: Heard, count: int) -> bool:
    return len(heard) >= count
