"""A page that shows a table as it is, whoever changes it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from pgchannels import MessageLayer, Subscription
from pgchannels.fastapi import SubscribeTo
from pgchannels.starlette import exception_handlers, lifespan
from pgchannels.starlette.events import event_source

HERE = Path(__file__).parent
RECONNECT_SECONDS = 1

if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/shop")
URL = os.environ["PGCHANNELS_URL"]
layer = MessageLayer(URL)
engine = create_async_engine(URL.replace("postgresql://", "postgresql+asyncpg://"))


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """Open the layer, and close the application's own connections in the end."""
    async with lifespan(layer)(app):
        yield
    await engine.dispose()


app = FastAPI(lifespan=running, exception_handlers=exception_handlers)
Changes = Annotated[Subscription, Depends(SubscribeTo("orders"))]


@app.get("/")
async def page() -> FileResponse:
    """The page."""
    return FileResponse(HERE / "index.html")


@app.get("/follow.js")
async def script() -> FileResponse:
    """The client of the neighbouring example."""
    return FileResponse(HERE.parent / "browser_client" / "follow.js", media_type="text/javascript")


@app.get("/orders")
async def orders() -> dict[str, Any]:
    """All orders, and where the topic stood when they were read: what comes after that is missing in them."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        since = await connection.scalar(text("SELECT pgchannels.position('orders')"))
        rows = await connection.execute(text("SELECT * FROM orders ORDER BY id"))
        return {"since": since, "orders": [dict(row) for row in rows.mappings()]}


@app.get("/orders/changes")
async def changes(request: Request, subscription: Changes) -> Response:
    """The changes since then, as the trigger publishes them."""
    return event_source(request, subscription, retry=RECONNECT_SECONDS)
