"""What the tests of both layers share: their type, and ways to read a channel to its end."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from channels.layers import InMemoryChannelLayer

from pgchannels.django import PostgresChannelLayer
from pgchannels.servers.placement import rendezvous
from tests.support.waiting import within

AnyLayer: TypeAlias = InMemoryChannelLayer | PostgresChannelLayer
Message: TypeAlias = dict[str, Any]

CAPACITY = 1000

# A group on each of two servers, a and b.
ENDS = {
    server: next(f"end.{n}" for n in range(100) if rendezvous("ab", f"topic:asgi:end.{n}") == server) for server in "ab"
}

# For what holds on one server alone: the order between several groups, or between groups and channels.
WITH_ONE_SERVER = pytest.mark.parametrize("new_layer", ["in_memory", "postgres"], indirect=True)


@asynccontextmanager
async def closing(layer: AnyLayer) -> AsyncIterator[AnyLayer]:
    """Close the layer in the end."""
    try:
        yield layer
    finally:
        await layer.close()


async def receive_many(layer: AnyLayer, channel: str, count: int) -> list[Message]:
    """The next messages of a channel."""
    return [await within(layer.receive(channel)) for _ in range(count)]


async def drain(layer: AnyLayer, channel: str) -> list[Message]:
    """Everything that was sent to a channel before now: what comes before a last message of each server."""
    last = {"type": "last"}
    ends = [group for group in ENDS.values() if len(servers_of(layer)) > 1]
    for group in ends:
        await layer.group_add(group, channel)
        await layer.group_send(group, last)
        await layer.group_discard(group, channel)
    await layer.send(channel, last)
    messages = [await within(layer.receive(channel))]
    while messages.count(last) <= len(ends):
        messages.append(await within(layer.receive(channel)))
    return [message for message in messages if message != last]


def servers_of(layer: AnyLayer) -> Sequence[str]:
    """The names of the servers of a layer; an empty one if there is one database."""
    return list(layer.database_urls()) if isinstance(layer, PostgresChannelLayer) else [""]


def texts(messages: list[Message]) -> list[Any]:
    """What the messages say."""
    return [message["text"] for message in messages]


def said(text: object) -> Message:
    """A message that says something."""
    return {"type": "chat.message", "text": text}
