"""The project: one room for consumers of either kind."""

import asyncio
import os
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
pages = get_asgi_application()
from pgchannels.django.events import event_source  # noqa: E402 (Django is ready now)
from pgchannels.receiving.mailbox import Mailbox  # noqa: E402


async def events(request: Any) -> Any:
    """What is said in the rooms of the query."""
    return await event_source(request, *request.GET.getlist("room"), ping=0.2, retry=0.5)


async def slow_events(request: Any) -> Any:
    """For clients that take nothing."""
    return await event_source(request, "slow", send_timeout=0.5)


async def state(request: Any) -> Any:
    """How many tasks and subscriptions there are."""
    node = get_channel_layer()._process.here()
    routes = node.receiver.router._routes.values() if node else []
    recipients = [one for route in routes for one in route.recipients.values()]
    recipients += [one for route in routes for _, one in route.beginning.values()]
    subscriptions = len({id(one) for one in recipients if isinstance(one, Mailbox)})
    return JsonResponse({"tasks": len(asyncio.all_tasks()), "subscriptions": subscriptions})


urlpatterns: list[Any] = [path("events", events), path("slow", slow_events), path("state", state)]


class Visitor(AsyncJsonWebsocketConsumer):
    """Says to its browser what is said in the room."""

    groups = ["room"]  # noqa: RUF012 (as Channels has it)

    async def chat_message(self, event: dict[str, Any]) -> None:
        """Hand it on."""
        await self.send_json(event["text"])


class SynchronousVisitor(JsonWebsocketConsumer):
    """The same, written for threads."""

    groups = ["room"]  # noqa: RUF012 (as Channels has it)

    def chat_message(self, event: dict[str, Any]) -> None:
        """Hand it on."""
        self.send_json(event["text"])


class Guest(AsyncJsonWebsocketConsumer):
    """In a room of its own, which it leaves as Channels' tutorial does it."""

    async def connect(self) -> None:
        """Come in."""
        self.room = f"room-{self.scope['url_route']['kwargs']['number']}"
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Go."""
        await self.channel_layer.group_discard(self.room, self.channel_name)


class Waiting(Guest):
    """Never gets so far as to accept, so that its server loses patience with it."""

    async def connect(self) -> None:
        """Come in, and wait."""
        await self.channel_layer.group_add(f"room-{self.scope['url_route']['kwargs']['number']}", self.channel_name)
        print("waiting", flush=True)
        await asyncio.Event().wait()


application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": URLRouter(
            [
                path("visit/", Visitor.as_asgi()),
                path("visit/synchronous/", SynchronousVisitor.as_asgi()),
                path("rooms/<int:number>/", Guest.as_asgi()),
                path("waiting/<int:number>/", Waiting.as_asgi()),
            ]
        ),
    }
)
