"""Notifications that a log cannot have caused, by somebody who knows what a node listens on: they have no effect."""

import asyncio
from collections.abc import Sequence
from typing import Final, TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer
from tests.support.gates import Gate
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

IMPOSSIBLE_ID: Final = 2**62
ENVELOPE: Final = "AaZmb3JnZWQ="  # "forged"


async def forge(connection: Connection, layer: MessageLayer, *texts: str) -> None:
    node = str(node_of(layer).identity.id)
    await connection.execute("SELECT pg_notify($1, text) FROM unnest($2::text[]) AS text", node, texts)


def message(message_id: int, *, address: str = "topic:asgi:room", envelope: str = ENVELOPE) -> str:
    return f"m 1700000000000000 {address} {message_id}  {envelope}"


def unreadable(layer: MessageLayer) -> int:
    return node_of(layer).receiver.payloads.unreadable


@pytest.mark.parametrize("envelope", [ENVELOPE, ""], ids=["small", "large"])
async def test_id_that_the_log_cannot_have_is_ignored_and_counted(
    layer: MessageLayer, connection: Connection, envelope: str
) -> None:
    async with layer.subscribe("room") as subscription:
        for payload in range(3):
            await forge(connection, layer, message(IMPOSSIBLE_ID + payload, envelope=envelope))
            await layer.publish("room", payload)
            assert (await within(anext(subscription))).payload == payload
    assert unreadable(layer) == 3


async def test_impossible_id_that_comes_while_the_log_is_read_is_ignored(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    node = node_of(layer)
    async with layer.subscribe("room") as subscription:
        with Gate(node.receiver.log, "page") as gate:
            await other_layer.publish("room", "x" * 9_000)
            await within(gate.reached())
            await forge(connection, layer, message(IMPOSSIBLE_ID))
            await other_layer.publish("room", "after")
            await until(lambda: asyncio.sleep(0, len(node.receiver.catch_up._held) == 3))
        received: Sequence[object] = [(await within(anext(subscription))).payload for _ in range(2)]
    assert received == ["x" * 9_000, "after"]
    assert unreadable(layer) == 1


async def test_ids_may_be_far_beyond_those_that_a_node_knows(layer: MessageLayer, connection: Connection) -> None:
    jump = "SELECT setval('pgchannels.message_id', last_value + (1::bigint << 40)) FROM pgchannels.message_id"
    async with layer.subscribe("room", "news") as subscription:
        for number in range(3):
            await connection.execute(jump)
            await layer.publish_many([("room", number), ("news", "x" * 9_000), ("room", number)])
            received = [(await within(anext(subscription))).payload for _ in range(3)]
            assert received == [number, "x" * 9_000, number]
    assert unreadable(layer) == 0


@pytest.mark.parametrize("position", ["0", "-1", "²", str(IMPOSSIBLE_ID), str(2**63), "9" * 5_000])
async def test_impossible_mark_is_ignored_and_counted(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection, position: str
) -> None:
    async with layer.subscribe("room") as subscription:
        await forge(connection, layer, f"h {position}")
        await other_layer.publish("room", "x" * 9_000)
        await other_layer.publish("room", "after")
        received = [(await within(anext(subscription))).payload for _ in range(2)]
    assert received == ["x" * 9_000, "after"]
    assert unreadable(layer) == 1
    assert node_of(layer).receiver.catch_up._heard_until < IMPOSSIBLE_ID
