"""A chat of FastAPI processes, over topics of a `pgchannels.MessageLayer`."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from orders import TOPICS, all_orders
from presence import ANNOUNCE_EVERY_SECONDS, PROCESS, SERVER, Presence
from pydantic import BaseModel, Field, ValidationError

from pgchannels import MessageLayer, MessagesLost, Subscription

PAGE = FilePath(__file__).parents[1] / "chat_page" / "index.html"
OTHER_PORT = os.environ.get("CHAT_OTHER_PORT")
HISTORY_SECONDS = 600
NO_MESSAGE, TRY_AGAIN = 4400, 4503  # close codes for the page

Room = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
Name = Annotated[str, Query(min_length=1, max_length=40)]

if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/chat")
layer = MessageLayer(os.environ["PGCHANNELS_URL"], expiry=HISTORY_SECONDS)
presence = Presence()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Keep the layer open for as long as the application runs."""
    async with layer:
        yield


app = FastAPI(lifespan=lifespan)


class Entry(BaseModel):
    """What a page sends."""

    text: str = Field(min_length=1, max_length=2000)


@app.get("/")
async def page() -> FileResponse:
    """The chat page, the same that Django serves."""
    return FileResponse(PAGE)


@app.get("/server")
async def server() -> dict[str, str]:
    """Which server this is, for the page where users join."""
    return {"server": SERVER}


@app.websocket("/ws/{room}")
async def chat(socket: WebSocket, room: Room, name: Name) -> None:
    """One page in one room, until either side ends it."""
    await socket.accept()
    topic = f"chat.{room}"
    # Subscribe before reading the history: a message sent in between arrives twice, and the page knows its id.
    async with layer.subscribe(topic, *TOPICS) as subscription:
        presence.join(topic, socket, name)
        try:
            await converse(socket, subscription, topic, name)
        finally:
            presence.leave(topic, socket)
            await layer.publish(topic, presence.announcement(topic))


async def greet(socket: WebSocket, topic: str) -> None:
    """Tell the page where it is and what was said."""
    other_port = int(OTHER_PORT) if OTHER_PORT else None
    await socket.send_json({"type": "chat.welcome", "server": SERVER, "process": PROCESS, "other_port": other_port})
    recent = [message.payload for message in await layer.history(topic, limit=1000)]
    said = [payload for payload in recent if isinstance(payload, dict) and payload.get("type") == "chat.message"]
    await socket.send_json({"type": "chat.history", "messages": said[-50:]})
    if TOPICS:
        await socket.send_json(await all_orders())


async def converse(socket: WebSocket, subscription: Subscription, topic: str, name: str) -> None:
    """Run the tasks of one page; when one of them ends, the group ends the others."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay(subscription, socket, topic), name=f"relay {topic} to {name}")
            tasks.create_task(publish_entries(socket, topic, name), name=f"publish what {name} sends")
            tasks.create_task(announce(socket, topic), name=f"announce {topic}")
    except* WebSocketDisconnect:
        pass
    except* ValidationError:
        await socket.close(NO_MESSAGE)
    except* MessagesLost:
        # The page was too slow. It reconnects and reads the history.
        await socket.close(TRY_AGAIN)


async def relay(subscription: Subscription, socket: WebSocket, topic: str) -> None:
    """Hand messages to the page, old and new; answer roll calls for this process."""
    await greet(socket, topic)
    async for message in subscription:
        match message.payload:
            case {"type": "chat.message" | "chat.presence" | "row.change"}:
                await socket.send_json(message.payload)
            case {"type": "chat.roll_call"}:
                await announce_once(socket, topic)


async def publish_entries(socket: WebSocket, topic: str, name: str) -> None:
    """Publish what the page sends, until it disconnects."""
    while True:
        entry = Entry.model_validate_json(await socket.receive_text())
        await layer.publish(topic, chat_message(name, entry.text))


async def announce(socket: WebSocket, topic: str) -> None:
    """Call the roll for a newcomer, then repeat this process's list: pages forget lists that are not repeated."""
    await layer.publish(topic, {"type": "chat.roll_call"})
    while True:
        await asyncio.sleep(ANNOUNCE_EVERY_SECONDS)
        await announce_once(socket, topic)


async def announce_once(socket: WebSocket, topic: str) -> None:
    """Announce who is connected to this process, unless another of its pages does."""
    if presence.speaks_for_process(topic, socket):
        await layer.publish(topic, presence.announcement(topic))


def chat_message(author: str, text: str) -> dict[str, Any]:
    """A message for the topic; `sent_at` is in seconds of this machine's clock."""
    return {
        "type": "chat.message",
        "id": secrets.token_hex(8),
        "author": author,
        "text": text,
        "server": SERVER,
        "process": PROCESS,
        "sent_at": time.time(),
    }
