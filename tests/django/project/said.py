"""What the tests of the project ask of a layer, whichever runner runs them."""

import asyncio
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.test import Client

LIMIT_SECONDS = 30
QUEUES = ("thumbnails", "archive")


def say_and_read(client: Client, text: str) -> dict[str, list[str]]:
    """What waits in the queues after the view has said the text: nothing else, when no test leaks into another."""
    assert client.get(f"/say/{text}/").status_code == 200
    return async_to_sync(_read)()


def leave_much_behind(client: Client) -> None:
    """Messages in queues, and members of groups."""
    layer = get_channel_layer()
    for number in range(3):
        assert client.get(f"/say/{number}/").status_code == 200
    layer.sync.group_add("room", "thumbnails")


async def _read() -> dict[str, list[str]]:
    layer = get_channel_layer()
    end: dict[str, Any] = {"type": "chat.message", "text": "end"}
    texts: dict[str, list[str]] = {queue: [] for queue in QUEUES}
    for queue in QUEUES:
        await layer.send(queue, end)
        while (message := await asyncio.wait_for(layer.receive(queue), LIMIT_SECONDS)) != end:
            texts[queue].append(message["text"])
    return texts
