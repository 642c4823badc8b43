"""What consumers are told of the connection and of losses."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from channels.exceptions import ChannelFull

from pgchannels import ConfigurationError, MessageLayer
from pgchannels.django import PostgresChannelLayer
from tests.support.log import lose_the_log
from tests.support.roads import node_of
from tests.support.waiting import until, within

NOTICES: dict[str, Any] = {"on_disconnect": "database.lost", "on_reconnect": "database.back", "on_gap": "messages.lost"}


@pytest.fixture
async def noticing(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """A layer with all notices."""
    layer = PostgresChannelLayer(database_url, heartbeat=0.2, capacity=2, **NOTICES)
    yield layer
    await layer.close()


async def cut_listener(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """End the connection that listens."""
    assert await connection.fetchval("SELECT pg_terminate_backend(pid, 5000) FROM pgchannels.node")


async def test_consumers_are_told_when_the_connection_is_lost_and_when_it_is_back(
    noticing: PostgresChannelLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    waiting, member = await noticing.new_channel(), await noticing.new_channel()
    await noticing.group_add("room", member)
    await noticing.send(waiting, {"type": "before"})
    await cut_listener(connection)
    notices = [{"type": "database.lost"}, {"type": "database.back"}]
    assert [await received(noticing, member) for _ in range(2)] == notices
    assert [await received(noticing, waiting) for _ in range(3)] == [{"type": "before"}, *notices]


async def has_lost(layer: PostgresChannelLayer, count: int) -> bool:
    """Whether so many messages have come and were not kept."""
    node = node_of(layer)
    return node.losses.messages == count


async def test_consumer_is_told_how_many_messages_it_lost_over_its_capacity(noticing: PostgresChannelLayer) -> None:
    channel = await noticing.new_channel()
    await noticing.group_add("room", channel)
    for number in range(5):
        await noticing.group_send("room", {"type": "x", "number": number})
    await until(lambda: has_lost(noticing, 3))
    assert [(await received(noticing, channel))["number"] for _ in range(2)] == [0, 1]
    assert await received(noticing, channel) == {"type": "messages.lost", "reason": "capacity", "count": 3}


async def test_consumer_is_told_of_a_crash(
    noticing: PostgresChannelLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    channel = await noticing.new_channel()
    await lose_the_log(connection)
    message = await received(noticing, channel)
    while message["type"] != "messages.lost":
        message = await received(noticing, channel)
    assert message == {"type": "messages.lost", "reason": "crash", "count": None}


async def test_consumer_is_told_of_a_group_message_that_is_no_dict(
    noticing: PostgresChannelLayer, database_url: str
) -> None:
    channel = await noticing.new_channel()
    await noticing.group_add("room", channel)
    async with MessageLayer(database_url) as layer:
        await layer.publish("room", "no dict")
    assert await received(noticing, channel) == {"type": "messages.lost", "reason": "unreadable", "count": 1}
    assert await has_lost(noticing, 1)


async def test_layer_without_notices_tells_consumers_nothing(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = PostgresChannelLayer(database_url, heartbeat=0.2, capacity=2)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(3):
        await layer.group_send("room", {"type": "x", "number": number})
    await cut_listener(connection)
    assert [(await received(layer, channel))["number"] for _ in range(2)] == [0, 1]
    await layer.group_send("room", {"type": "x", "number": 9})
    assert await received(layer, channel) == {"type": "x", "number": 9}
    await layer.close()


async def test_full_channel_raises_the_error_that_channels_knows(noticing: PostgresChannelLayer) -> None:
    channel = await noticing.new_channel()
    for name in (channel, "jobs"):
        for number in range(2):
            await noticing.send(name, {"type": "x", "number": number})
        with pytest.raises(ChannelFull, match="is full: capacity=2"):
            await noticing.send(name, {"type": "x", "number": 2})


@pytest.mark.parametrize("name", NOTICES)
@pytest.mark.parametrize("value", ["", 1, ["x"]])
def test_notice_that_is_no_message_type_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be the type of a message"):
        PostgresChannelLayer("postgresql://", **{name: value})


async def received(layer: PostgresChannelLayer, channel: str) -> dict[str, Any]:
    """The next message."""
    return await within(layer.receive(channel))
