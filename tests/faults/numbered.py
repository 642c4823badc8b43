"""Messages of a group by their numbers."""

from typing import Any

from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within


def numbered(number: int) -> dict[str, Any]:
    return {"type": "message", "number": number}


async def numbers(layer: PostgresChannelLayer, channel: str, count: int) -> list[Any]:
    """What comes, by its numbers; gaps by their reason."""
    received = [await within(layer.receive(channel)) for _ in range(count)]
    return [message.get("number", message.get("reason")) for message in received]
