"""A shop whose orders and notifications are one transaction: both exist, or neither."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from database import URL, engine, new_session
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse
from models import Item, Order
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from pgchannels import MessageLayer, Subscription
from pgchannels.fastapi import SubscribeTo
from pgchannels.starlette import exception_handlers, lifespan
from pgchannels.starlette.events import event_source

EXAMPLES = Path(__file__).parents[1]
RECONNECT_SECONDS = 1
KEEP_SECONDS = 24 * 3600  # how long a mail waits for a mailer

layer = MessageLayer(URL, expiry=KEEP_SECONDS)


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[None]:
    """Open the layer, and close the application's own connections in the end."""
    async with lifespan(layer)(app):
        yield
    await engine.dispose()


app = FastAPI(lifespan=running, exception_handlers=exception_handlers)
Name = Annotated[str, Query(pattern=r"^[\w .'-]{1,40}$")]
Notifications = Annotated[Subscription, Depends(SubscribeTo("orders"))]


@app.post("/orders", status_code=201)
async def place_order(customer: Name, item: Name) -> dict[str, int]:
    """Store an order and publish its notification, or refuse both."""
    try:
        async with new_session.begin() as session:
            return {"number": await store(session, Order(customer=customer, item_name=item))}
    except IntegrityError:
        raise HTTPException(409, f"there is no {item} left") from None


async def store(session: AsyncSession, order: Order) -> int:
    """Everything that belongs to an order; the session commits afterwards, or rolls all of it back."""
    session.add(order)
    await session.flush()  # gives it its number
    notification = {"type": "order.placed", "number": order.id, "customer": order.customer, "item": order.item_name}
    await layer.publish("orders", notification, connection=session)
    await layer.send("mails", {"to": order.customer, "order": order.id}, connection=session)
    # Last, so that the refusal of a sold-out item comes when the notification is already published.
    taken = update(Item).where(Item.name == order.item_name).values(left_in_stock=Item.left_in_stock - 1)
    await session.execute(taken)
    return order.id


@app.get("/orders/events")
async def events(request: Request, subscription: Notifications) -> Response:
    """The notifications, for the page."""
    return event_source(request, subscription, retry=RECONNECT_SECONDS)


@app.get("/items")
async def items() -> list[dict[str, Any]]:
    """What is in stock."""
    async with new_session() as session:
        found = await session.scalars(select(Item).order_by(Item.name.desc()))
        return [{"name": item.name, "left": item.left_in_stock} for item in found]


@app.get("/")
async def page() -> FileResponse:
    """The page, the same that Django serves."""
    return FileResponse(EXAMPLES / "orders_page" / "index.html")


@app.get("/follow.js")
async def script() -> FileResponse:
    """The client of a neighbouring example."""
    return FileResponse(EXAMPLES / "browser_client" / "follow.js", media_type="text/javascript")
