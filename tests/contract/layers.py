"""What the tests of both layers share: their type, and ways to read a channel to its end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from channels.layers import InMemoryChannelLayer

from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

AnyLayer: TypeAlias = InMemoryChannelLayer | PostgresChannelLayer
Message: TypeAlias = dict[str, Any]

CAPACITY = 1000


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
    """Everything that was sent to a channel before now: what comes before a last message."""
    last = {"type": "last"}
    await layer.send(channel, last)
    messages = []
    while (message := await within(layer.receive(channel))) != last:
        messages.append(message)
    return messages


def texts(messages: list[Message]) -> list[Any]:
    """What the messages say."""
    return [message["text"] for message in messages]


def said(text: object) -> Message:
    """A message that says something."""
    return {"type": "chat.message", "text": text}
