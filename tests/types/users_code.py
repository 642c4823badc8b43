# pyright: strict
"""What users write: the whole public face, with the types that it promises. Never run, checked from outside."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, assert_type

from channels.layers import BaseChannelLayer
from fastapi import Depends, FastAPI
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from pgchannels import (
    ChannelFull,
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    Gap,
    GapReason,
    InvalidMessage,
    InvalidName,
    LayerClosed,
    Message,
    MessageLayer,
    MessagesLost,
    MessageTooLarge,
    PgChannelsError,
    Position,
    Positions,
    SchemaMissing,
    SchemaOutdated,
    Subscription,
    UnreadableMessage,
    Work,
    WouldBlock,
)
from pgchannels.django import PostgresChannelLayer
from pgchannels.fastapi import LayerDep, SubscribeTo
from pgchannels.serializers import registry
from pgchannels.starlette import lifespan, websocket_messages
from pgchannels.starlette.events import event_source

layer = MessageLayer("postgresql://localhost/mydb")
layers: list[MessageLayer] = [
    MessageLayer(URL.create("postgresql", database="mydb")),
    MessageLayer(create_async_engine("postgresql+asyncpg:///mydb")),
    MessageLayer(["postgresql://db1/mydb", "postgresql://db2/mydb"]),
    MessageLayer(
        {"a": "postgresql://db1/mydb", "b": URL.create("postgresql", database="mydb")},
        pinned={"orders.*": "a", re.compile("stock.*"): "b"},
        also_receive_from={"a": "postgresql://db1/mydb"},
    ),
    MessageLayer(
        "postgresql://localhost/mydb",
        prefix="shop",
        expiry=0.5,
        group_expiry=3600,
        capacity=10,
        channel_capacity={"thumbnails.*": 50, re.compile("mail"): 5},
        symmetric_encryption_keys=["new", b"old"],
        serializer_format="text",
        schema="messages",
        send_timeout=1,
        heartbeat=0.1,
    ),
]


async def publish() -> Position:
    """Send to topics and channels."""
    await layer.open()
    position = assert_type(await layer.publish("room", {"text": "hello"}), Position)
    assert_type(await layer.publish_many([("room", 1), ("news", None)]), list[Position])
    channel = assert_type(await layer.new_channel("mine"), str)
    assert_type(await layer.send(channel, b"direct"), Position)
    await layer.close()
    return max(position, Position.parse(str(position)))


async def receive() -> None:
    """Receive from channels and queues."""

    def note(gap: Gap) -> None:
        assert_type(gap.reason, GapReason)
        assert_type(gap.count, int | None)

    assert_type(await layer.receive("thumbnails"), Any)
    async with layer.claim("thumbnails", attempts=3, visible_after=60, on_gap=note) as work:
        assert_type(work, Work)
        assert_type(work.payload, Any)
        assert_type((work.channel, work.attempts), tuple[str, int])
        assert_type((work.position, work.published_at), tuple[Position, datetime])
    assert_type(await layer.receive("thumbnails", on_gap=note), Any)


def publish_from_a_thread() -> None:
    """Send without an event loop."""
    assert_type(layer.sync.publish("room", {"text": "hello"}), Position)
    assert_type(layer.sync.publish_many([("room", 1), ("news", None)]), list[Position])
    assert_type(layer.sync.send("thumbnails", {"id": 7}), Position)
    channel_layer.sync.send("thumbnails", {"type": "generate"})
    channel_layer.sync.group_add("room", "thumbnails")
    channel_layer.sync.group_send("room", {"type": "chat.message"})
    channel_layer.sync.group_discard("room", "thumbnails")
    channel_layer.sync.flush()


class Text:
    """A format of one's own."""

    def as_bytes(self, message: Any) -> bytes:
        """What is stored."""
        return str(message).encode()

    def from_bytes(self, message: bytes) -> str:
        """What is received."""
        return message.decode()


registry.register_serializer("text", Text)


async def listen(websocket: WebSocket) -> None:
    """Subscribe, and read what there was."""
    async with layer.subscribe("room", since=websocket.query_params.get("since")) as subscription:
        assert_type(subscription, Subscription)
        async for message in subscription:
            assert_type(message, Message)
            assert_type(message.topic, str)
            assert_type(message.payload, Any)
            assert_type(message.position, Position)
            assert_type(message.published_at, datetime)
            await websocket.send_json({"position": str(message.position), **message.payload})
        assert_type(subscription.lost, int)
    layer.subscribe("room", "news", since=Position(1, 2), capacity=5, when_full="drop_oldest", on_gap=print)
    layer.subscribe("room", since=timedelta(minutes=5))
    assert_type(await layer.history("room", since="1-2", until=datetime.now(UTC), limit=5), list[Message])


async def outcome(attempt: MessageLayer) -> Literal["sent", "full", "lost", "perhaps sent", "not sent"]:
    """What became of a message, by the errors."""
    try:
        async with attempt as opened:
            assert_type(opened, MessageLayer)
            await opened.send("thumbnails", {"id": 7})
    except ChannelFull:
        return "full"
    except MessagesLost as error:
        assert_type(error.gap, Gap)
        assert_type(error.count, int | None)
        return "lost"
    except PgChannelsError as error:
        return "perhaps sent" if assert_type(error.may_have_been_sent, bool) else "not sent"
    return "sent"


ERRORS: list[type[PgChannelsError]] = [
    ConfigurationError,
    DatabaseRefused,
    DatabaseUnavailable,
    InvalidMessage,
    InvalidName,
    LayerClosed,
    MessageTooLarge,
    SchemaMissing,
    SchemaOutdated,
    UnreadableMessage,
    WouldBlock,
]

api = FastAPI(lifespan=lifespan(layer))


async def may_listen(connection: HTTPConnection, topic: str) -> bool:
    """Who may listen to a topic."""
    return topic == connection.query_params.get("may")


Room = Annotated[Subscription, Depends(SubscribeTo("rooms.{room}", allow=may_listen))]


@api.get("/rooms/{room}/events")
async def room_events(request: Request, subscription: Room, of_application: LayerDep) -> Response:
    """Listen by Server-Sent Events."""
    assert_type(subscription, Subscription)
    assert_type(of_application, MessageLayer)
    return event_source(request, subscription, ping=10)


@api.websocket("/rooms/{room}")
async def room_messages(websocket: WebSocket, subscription: Room) -> None:
    """Listen by a websocket."""
    await websocket_messages(websocket, subscription)
    layer.subscribe("room", "news", since=assert_type(subscription.position, Positions))


application = Starlette(routes=[WebSocketRoute("/", listen)], lifespan=lifespan(layer))

channel_layer = PostgresChannelLayer(
    "postgresql://localhost/mydb",
    expiry=10,
    serializer_format="json",
    on_disconnect="database.lost",
    on_reconnect="database.back",
    on_gap="messages.lost",
)
of_an_alias = PostgresChannelLayer(database="default", prefix="shop")
of_keys = PostgresChannelLayer(NAME="mydb", HOST="localhost", PORT=5432, OPTIONS={"sslmode": "require"})
any_layer: BaseChannelLayer = channel_layer


async def use_channels() -> dict[str, Any]:
    """The layer of Django Channels."""
    channel = assert_type(await channel_layer.new_channel(), str)
    await channel_layer.group_add("room", channel)
    await channel_layer.group_send("room", {"type": "chat.message"})
    await channel_layer.send(channel, {"type": "chat.message"})
    await channel_layer.group_discard("room", channel)
    await channel_layer.flush()
    try:
        return assert_type(await channel_layer.receive(channel), dict[str, Any])
    finally:
        await channel_layer.close()
