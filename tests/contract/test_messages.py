"""What a message can carry, and what is refused."""

import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest

from pgchannels import InvalidMessage
from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

from .layers import AnyLayer, Message, closing, drain, said

VALUES: dict[str, Any] = {
    "none": None,
    "booleans": [True, False],
    "integers": [0, 1, -1, 127, 128, 2**31, 2**32, 2**53 + 1, 2**63 - 1, -(2**63)],
    "floats": [0.0, -0.0, 1.0, 0.1, -1e308, 5e-324, sys.float_info.max, float("inf"), float("-inf"), float("nan")],
    "texts": [
        "",
        "plain",
        "äöü ß €",
        "汉字",
        "👩‍👩‍👧",
        "\U0010ffff",
        "nul \x00 inside",
        "\r\n\t'\"\\{}%s$1",
        "x" * 10_000,
    ],
    "bytes": [b"", b"plain", b"\x00\xff\xfe", bytes(range(256)), b"x" * 10_000],
    "lists": [[], [[]], [None, True, 1, 1.5, "text", b"bytes", [1, [2, [3]]], {"key": []}]],
    "dictionaries": [{}, {"": ""}, {"key": {"key": {"key": [1, {"ключ": None}]}}}, {"b": 1, "a": 2}],
    "many keys": {f"key {number}": number for number in range(1000)},
}

BEYOND_THE_SPECIFICATION: dict[str, Any] = {
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    "times": [
        datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        datetime(2026, 1, 2),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    ],
    "date": date(2026, 1, 2),
    "decimals": [Decimal("1.50"), Decimal("-1E-30"), Decimal("Infinity")],
    "sets": [set(), {1, "two", b"three", None, (4, (5,)), frozenset({6}), UUID(int=7)}],
    "like boxes": [{"$uuid": "no uuid"}, {"$$set": []}, {"$": 1}, {"$date": 1, "other": 2}],
}


def as_sent(value: object) -> str:
    """A text that tells 1 from True and 1.0, and is equal for a NaN and another."""
    return repr(value)


async def test_every_type_of_value_arrives_as_it_was_sent(channel_layer: AnyLayer, channel: str) -> None:
    for name, value in VALUES.items():
        await channel_layer.send(channel, {"type": "value", "name": name, "value": value})
    received = {message["name"]: message["value"] for message in await drain(channel_layer, channel)}
    assert {name: as_sent(value) for name, value in received.items()} == {
        name: as_sent(value) for name, value in VALUES.items()
    }


async def test_every_type_of_value_arrives_through_a_group(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    await channel_layer.group_send("room", {"type": "values", "values": VALUES})
    [message] = await drain(channel_layer, channel)
    assert as_sent(message) == as_sent({"type": "values", "values": VALUES})


async def test_empty_message_arrives(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.send(channel, {})
    assert await drain(channel_layer, channel) == [{}]


@pytest.mark.parametrize("character", ["x", "€", b"\x00"], ids=["ascii", "unicode", "bytes"])
async def test_message_of_one_megabyte_arrives(channel_layer: AnyLayer, character: str | bytes) -> None:
    message = said(character * (1_000_000 // len(character)))
    await channel_layer.send("work_queue", message)
    assert await within(channel_layer.receive("work_queue")) == message


async def test_message_changed_after_sending_arrives_as_it_was_sent(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    message: Message = {"type": "list", "list": [1]}
    await channel_layer.send(channel, message)
    await channel_layer.group_send("room", message)
    message["list"].append(2)
    assert await drain(channel_layer, channel) == [{"type": "list", "list": [1]}] * 2


async def test_received_copies_of_a_group_message_are_independent(channel_layer: AnyLayer) -> None:
    one, two = await channel_layer.new_channel(), await channel_layer.new_channel()
    await channel_layer.group_add("room", one)
    await channel_layer.group_add("room", two)
    await channel_layer.group_send("room", {"type": "list", "list": [1]})
    received = await within(channel_layer.receive(one))
    received["list"].append(2)
    assert await within(channel_layer.receive(two)) == {"type": "list", "list": [1]}


@pytest.mark.parametrize("message", [None, "text", b"bytes", 5, ["list"], (), {"set"}, Exception], ids=repr)
async def test_message_that_is_no_dictionary_is_refused(channel_layer: AnyLayer, message: object) -> None:
    for send in (channel_layer.send, channel_layer.group_send):
        with pytest.raises((AssertionError, TypeError)):
            await send("room", cast(Message, message))


async def test_refused_message_leaves_no_trace(channel_layer: AnyLayer, channel: str) -> None:
    await channel_layer.group_add("room", channel)
    for send, name in ((channel_layer.send, channel), (channel_layer.group_send, "room")):
        with pytest.raises((AssertionError, TypeError)):
            await send(name, cast(Message, ["no dictionary"]))
    assert await drain(channel_layer, channel) == []


def circular() -> list[Any]:
    """A list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [2**64, -(2**63) - 1, Exception, timedelta(1), 1j, "\ud800", circular(), {(1, 1j)}],
    ids=lambda value: type(value).__name__,
)
async def test_value_that_no_message_can_carry_is_refused(postgres_layer: PostgresChannelLayer, value: object) -> None:
    # Ours alone: the oracle never leaves its process and carries any object.
    for send in (postgres_layer.send, postgres_layer.group_send):
        with pytest.raises(InvalidMessage):
            await send("room", said({"nested": [value]}))
    assert await drain(postgres_layer, "room") == []


@pytest.mark.parametrize("serializer_format", ["msgpack", "json"])
async def test_values_beyond_the_specification_come_back_as_they_were(
    way: dict[str, Any], serializer_format: str
) -> None:
    # Ours alone: the specification does without them.
    async with closing(PostgresChannelLayer(**way, serializer_format=serializer_format)) as layer:
        await layer.send("work_queue", said(BEYOND_THE_SPECIFICATION))
        assert await within(layer.receive("work_queue")) == said(BEYOND_THE_SPECIFICATION)


async def test_layers_with_different_formats_read_each_other(
    postgres_layer: PostgresChannelLayer, way: dict[str, Any]
) -> None:
    async with closing(PostgresChannelLayer(**way, serializer_format="json")) as other:
        for sender, receiver in ((postgres_layer, other), (other, postgres_layer)):
            await sender.send("work_queue", said(b"bytes"))
            assert await within(receiver.receive("work_queue")) == said(b"bytes")


async def test_tuple_arrives_as_a_list(postgres_layer: PostgresChannelLayer) -> None:
    # Ours alone: the specification has lists only, the oracle copies the tuple.
    await postgres_layer.send("work_queue", said((1, (2, 3))))
    assert await within(postgres_layer.receive("work_queue")) == said([1, [2, 3]])


@pytest.mark.parametrize("depth", [100, 500, 510, 520, 900, 1100])
async def test_deep_message_arrives_or_is_refused_by_the_sender(
    postgres_layer: PostgresChannelLayer, depth: int
) -> None:
    # Ours alone: how deep is deep is each layer's own; a receiver must never be given what it cannot read.
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    expected = [said(value)]
    try:
        await postgres_layer.send("work_queue", said(value))
    except InvalidMessage:
        assert depth > 100
        expected = []
    assert await drain(postgres_layer, "work_queue") == expected
