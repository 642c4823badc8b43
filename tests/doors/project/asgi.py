"""The project: one room for consumers of either kind."""

import os
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
pages = get_asgi_application()
urlpatterns: list[Any] = []


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


application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": URLRouter(
            [path("visit/", Visitor.as_asgi()), path("visit/synchronous/", SynchronousVisitor.as_asgi())]
        ),
    }
)
