"""What no pgchannels wrote, or what cannot be opened here: it is counted, told to its receiver, and stops nothing."""

import gc
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Final

import pytest

from pgchannels import Gap, GapReason, MessageLayer
from pgchannels.codec import Codec
from pgchannels.names import node_address
from pgchannels.process.node import Node
from tests.faults.malformed import MalformedNotifications, malformed_envelopes
from tests.support.roads import ROADS, Connection, deliver, node_of
from tests.support.waiting import within

SEED: Final = 20_260_301
NOTIFICATIONS: Final = 100_000
NOTIFICATIONS_AT_ONCE: Final = 2_000
ENVELOPES_AT_ONCE: Final = 200
MOST_LINES: Final = 3  # of the log, for a flood of one kind
MOST_BLOCKS: Final = 10_000  # of memory that a flood may leave in use


async def notify(connection: Connection, node: Node, texts: Sequence[str]) -> None:
    """Send notifications to a node, as only those can who may read its tables."""
    await connection.execute("SELECT pg_notify($1, text) FROM unnest($2::text[]) AS text", str(node.identity.id), texts)


def blocks_in_use() -> int:
    """How many blocks of memory Python's objects take, without those that are only not collected yet."""
    gc.collect()
    return sys.getallocatedblocks()


def require_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    """A flood is no flood of the log."""
    lines = [record.getMessage() for record in caplog.records if record.name == "pgchannels"]
    assert 1 <= len(lines) <= MOST_LINES, lines[:20]


def require_carriable(payload: object) -> None:
    """What is received is of the types that a message carries, whoever wrote it."""
    Codec().encode(payload, bound_to="")


async def test_hundred_thousand_malformed_notifications_stop_nothing(
    layer: MessageLayer, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    print(f"seed {SEED}")
    node = node_of(layer)
    async with layer.subscribe("room") as subscription:
        position = await layer.publish("room", "genuine")
        malformed = MalformedNotifications(SEED, f"m 1700000000000000 topic:asgi:room {position.to_id()}  AaFh")
        await notify(connection, node, malformed.take(NOTIFICATIONS_AT_ONCE))
        before = blocks_in_use()
        for number in range(NOTIFICATIONS_AT_ONCE, NOTIFICATIONS, NOTIFICATIONS_AT_ONCE):
            await notify(connection, node, malformed.take(NOTIFICATIONS_AT_ONCE))
            await layer.publish("room", number)
        assert (await within(anext(subscription))).payload == "genuine"
        for number in range(NOTIFICATIONS_AT_ONCE, NOTIFICATIONS, NOTIFICATIONS_AT_ONCE):
            assert (await within(anext(subscription))).payload == number
    assert node.receiver.payloads.unreadable == NOTIFICATIONS
    assert blocks_in_use() - before < MOST_BLOCKS
    require_few_lines(caplog)


async def test_notifications_of_old_or_foreign_messages_deliver_nothing_twice(
    layer: MessageLayer, connection: Connection
) -> None:
    node = node_of(layer)
    async with layer.subscribe("room") as subscription:
        for number in range(20):
            position = await layer.publish("room", number)
            head, message_id = "m 1700000000000000 topic:asgi:room", position.to_id()
            old = [
                f"{head} {message_id}  AQU=",
                f"{head} {message_id}  ",
                f"{head} {message_id - 1}  AQU= {message_id}  AQU=",
                f"m 0 topic:asgi:room {message_id - 1}  ",
            ]
            others = [
                f"m 1700000000000000 topic:asgi:elsewhere {message_id}  AQU=",
                "q queue:asgi:nobody",
                f"p {number}",
                "q",
                "p",
                "q ",
            ]
            await notify(connection, node, [*old, *others])
        await layer.publish("room", "last")
        payloads = [(await within(anext(subscription))).payload for _ in range(21)]
    assert payloads == [*range(20), "last"]


@pytest.mark.parametrize(("road", "count"), [("topic", 10_000), ("channel", 10_000), ("queue", 400)])
async def test_malformed_envelopes_are_gaps_and_the_good_ones_among_them_come_in_order(
    layer: MessageLayer, connection: Connection, caplog: pytest.LogCaptureFixture, road: str, count: int
) -> None:
    print(f"seed {SEED}")
    node, envelopes, others, told = node_of(layer), malformed_envelopes(SEED), 0, 0
    async with ROADS[road](layer) as way:
        before = blocks_in_use()
        for number in range(count // ENVELOPES_AT_ONCE):
            await deliver(connection, way.address, way.channel, list(islice(envelopes, ENVELOPES_AT_ONCE)))
            await way.send(layer, {"good": number})
            while (payload := await within(way.receive())) != {"good": number}:
                require_carriable(payload)
                others += 1
            told += way.gaps.count(Gap(GapReason.UNREADABLE, 1))
            way.gaps.clear()
    assert node.receiver.payloads.unreadable == node.losses.messages == told == count - others > count / 2
    assert blocks_in_use() - before < MOST_BLOCKS
    require_few_lines(caplog)


async def test_malformed_commands_to_a_node_stop_nothing(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    node = node_of(layer)
    address, channel = node_address("asgi", node.identity.name), await layer.new_channel()
    commands = [
        {"join": 1},
        {"join": [1, 2]},
        {"leave": []},
        {"flush": False},
        {"later": ["version"]},
        [],
        None,
        "flush",
    ]
    await deliver(connection, address, None, [Codec().encode(command, bound_to=address) for command in commands])
    await deliver(connection, address, None, list(islice(malformed_envelopes(SEED), ENVELOPES_AT_ONCE)))
    await other_layer.send(channel, "good")
    gaps: list[Gap] = []
    assert await within(layer.receive(channel, on_gap=gaps.append)) == "good"
    assert set(gaps) == {Gap(GapReason.UNREADABLE, None)}  # perhaps the channel was to join a topic
    assert node.receiver.payloads.unreadable == len(commands) + ENVELOPES_AT_ONCE
    require_few_lines(caplog)


async def test_history_passes_over_what_cannot_be_read(layer: MessageLayer, connection: Connection) -> None:
    await layer.publish("room", "before")
    await deliver(connection, "topic:asgi:room", None, [b"", b"\xff of a later version"])
    position = await layer.publish("room", "after")
    assert [message.payload for message in await layer.history("room")] == ["before", "after"]
    assert [message.payload for message in await layer.history("room", since="0-0")] == ["before", "after"]
    assert [message.position for message in await layer.history("room", limit=2)] == [position]
    assert node_of(layer).receiver.payloads.unreadable == 2 + 2 + 1
    assert node_of(layer).losses.messages == 0
