"""The project as an ASGI application: views, and a chat in one room."""

import os
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django_application = get_asgi_application()


class Chat(AsyncJsonWebsocketConsumer):
    """Says to its browser what is said in the room."""

    groups = ["room"]  # noqa: RUF012 (as Channels has it)

    async def chat_message(self, event: dict[str, Any]) -> None:
        """Hand it on."""
        await self.send_json(event["text"])


application = ProtocolTypeRouter({"http": django_application, "websocket": URLRouter([path("chat/", Chat.as_asgi())])})
