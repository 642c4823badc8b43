"""Visitors of consumers: websockets without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from channels.testing import WebsocketCommunicator

from tests.support.waiting import LIMIT_SECONDS


@asynccontextmanager
async def visitor(consumer: Any) -> AsyncIterator[WebsocketCommunicator]:
    """A websocket connected to a consumer."""
    communicator = WebsocketCommunicator(consumer.as_asgi(), "/")
    connected, _ = await communicator.connect(timeout=LIMIT_SECONDS)
    assert connected
    try:
        yield communicator
    finally:
        await communicator.disconnect(timeout=LIMIT_SECONDS)


async def heard(communicator: WebsocketCommunicator) -> Any:
    """What the consumer sends next."""
    return await communicator.receive_json_from(timeout=LIMIT_SECONDS)
