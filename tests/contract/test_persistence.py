"""How long messages and memberships stay."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import until, within

from .layers import drain, said, texts

HEARTBEAT_SECONDS = 0.1


@pytest.fixture
async def forgetful_layer(way: dict[str, Any]) -> AsyncIterator[PostgresChannelLayer]:
    """A layer whose members leave after a second."""
    layer = PostgresChannelLayer(**way, group_expiry=1, heartbeat=HEARTBEAT_SECONDS)
    yield layer
    await layer.close()


async def has_left(layer: PostgresChannelLayer, channel: str) -> bool:
    """Whether a channel gets no more messages of the room."""
    await layer.group_send("room", said("hello"))
    return await drain(layer, channel) == []


@pytest.mark.parametrize("kind", ["own_channel", "channel_of_another_node", "work_queue"])
async def test_member_leaves_when_it_has_not_been_added_again(
    forgetful_layer: PostgresChannelLayer, other_node: PostgresChannelLayer, kind: str
) -> None:
    channel = "work_queue" if kind == "work_queue" else await forgetful_layer.new_channel()
    adding = other_node if kind == "channel_of_another_node" else forgetful_layer
    await adding.group_add("room", channel)
    await until(lambda: has_left(forgetful_layer, channel))
    await adding.group_add("room", channel)
    await forgetful_layer.group_send("room", said("again"))
    assert texts(await drain(forgetful_layer, channel)) == ["again"]


async def test_membership_of_a_queue_lasts_from_when_it_was_added_last(
    forgetful_layer: PostgresChannelLayer,
    postgres_layer: PostgresChannelLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    expires_at = "SELECT expires_at FROM pgchannels.member"
    await forgetful_layer.group_add("room", "work_queue")
    first = await connection.fetchval(expires_at)
    await forgetful_layer.group_add("room", "work_queue")
    assert await connection.fetchval(expires_at) > first
    await postgres_layer.group_add("room", "work_queue")  # whose members stay for ever
    assert await connection.fetchval(expires_at) is None


async def test_expired_memberships_are_removed_when_the_log_rotates(
    forgetful_layer: PostgresChannelLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await forgetful_layer.group_add("room", "work_queue")
    await connection.execute("UPDATE pgchannels.member SET expires_at = now()")
    await forgetful_layer.send("work_queue", said("there is a log"))
    await connection.execute("UPDATE pgchannels.log_state SET rotated_at = '-infinity'")
    assert await connection.fetchval("SELECT pgchannels.rotate()")
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.member") == 0


async def test_membership_is_kept_when_messages_expire_unread(
    postgres_layer: PostgresChannelLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await postgres_layer.group_add("room", "work_queue")
    await postgres_layer.group_send("room", said("unread"))
    await connection.execute("UPDATE pgchannels.message SET expires_at = now()")
    await postgres_layer.group_send("room", said("read"))
    assert await within(postgres_layer.receive("work_queue")) == said("read")
