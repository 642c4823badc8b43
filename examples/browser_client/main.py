"""A room that browsers follow by Server-Sent Events and by a websocket."""

import os
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Response, WebSocket
from fastapi.responses import FileResponse

from pgchannels import MessageLayer, Subscription
from pgchannels.fastapi import SubscribeTo
from pgchannels.starlette import exception_handlers, lifespan, websocket_messages
from pgchannels.starlette.events import event_source

HERE = Path(__file__).parent
MISSED_SECONDS = 600  # how long a browser may be away and still miss nothing
RECONNECT_SECONDS = 1

if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/rooms")
layer = MessageLayer(os.environ["PGCHANNELS_URL"], expiry=MISSED_SECONDS)
app = FastAPI(lifespan=lifespan(layer), exception_handlers=exception_handlers)

Room = Annotated[Subscription, Depends(SubscribeTo("rooms.{room}"))]


@app.get("/")
async def page() -> FileResponse:
    """The page with both clients."""
    return FileResponse(HERE / "index.html")


@app.get("/follow.js")
async def script() -> FileResponse:
    """The clients."""
    return FileResponse(HERE / "follow.js", media_type="text/javascript")


@app.post("/rooms/{room}")
async def say(room: str, text: str) -> str:
    """Publish to the room."""
    return str(await layer.publish(f"rooms.{room}", {"text": text}))


@app.get("/rooms/{room}/events")
async def events(request: Request, subscription: Room) -> Response:
    """The room by Server-Sent Events."""
    return event_source(request, subscription, retry=RECONNECT_SECONDS)


@app.websocket("/rooms/{room}/websocket")
async def websocket(socket: WebSocket, subscription: Room) -> None:
    """The room by a websocket."""
    await websocket_messages(socket, subscription, resumable=True)
