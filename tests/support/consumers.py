"""A consumer as a project writes it: a chat in one room."""

from typing import Any

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncJsonWebsocketConsumer, JsonWebsocketConsumer


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """Sends what it is told to everybody in the room."""

    groups = ["room"]  # noqa: RUF012 (as Channels has it)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.channel_layer.group_send("room", {"type": "chat.message", "text": content})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send_json({"said": event["text"]})


class SynchronousChatConsumer(JsonWebsocketConsumer):
    """The same, written for threads."""

    groups = ["room"]  # noqa: RUF012 (as Channels has it)

    def receive_json(self, content: Any, **kwargs: Any) -> None:
        async_to_sync(self.channel_layer.group_send)("room", {"type": "chat.message", "text": content})

    def chat_message(self, event: dict[str, Any]) -> None:
        self.send_json({"said": event["text"]})
