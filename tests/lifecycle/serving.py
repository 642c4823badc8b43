"""A FastAPI application for `uvicorn tests.lifecycle.serving:app`; the database is in PGCHANNELS_URL."""

import asyncio
import os

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from pgchannels import MessageLayer, Subscription
from pgchannels.starlette import lifespan

layer = MessageLayer(os.environ["PGCHANNELS_URL"])
app = FastAPI(lifespan=lifespan(layer))


@app.websocket("/ws/{room}")
async def echo(socket: WebSocket, room: str) -> None:
    """Publish what comes from the socket, without an end, and send what the room hears."""
    await socket.accept()
    async with layer.subscribe(room, when_full="drop_oldest") as subscription:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(relay(subscription, socket))
                tasks.create_task(publish(socket, room))
        except* (WebSocketDisconnect, RuntimeError):  # what Starlette raises on a socket that the server has closed
            pass


async def relay(subscription: Subscription, socket: WebSocket) -> None:
    async for message in subscription:
        await socket.send_text(str(message.position))


async def publish(socket: WebSocket, room: str) -> None:
    while True:
        await layer.publish(room, await socket.receive_text())
