"""One page in one room. What it sends to its group reaches every process, those of FastAPI too."""

import asyncio
import logging
import os
import secrets
import time
from typing import Any
from urllib.parse import parse_qs

from channels.generic.websocket import AsyncJsonWebsocketConsumer

from chat.history import last_messages
from chat.orders import GROUPS, all_orders
from chat.presence import ANNOUNCE_EVERY_SECONDS, PROCESS, SERVER, Presence
from pgchannels import PgChannelsError

OTHER_PORT = os.environ.get("CHAT_OTHER_PORT")
LONGEST_NAME = 40
LONGEST_TEXT = 2000
NO_MESSAGE, TRY_AGAIN = 4400, 4503  # close codes for the page

logger = logging.getLogger(__name__)
presence = Presence()


class ChatConsumer(AsyncJsonWebsocketConsumer):
    """A page and its group."""

    group: str
    name: str
    announcing: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self.group = f"chat.{self.scope['url_route']['kwargs']['room']}"
        self.name = "".join(parse_qs(self.scope["query_string"].decode()).get("name", []))
        if not 0 < len(self.name) <= LONGEST_NAME:
            await self.close()
            return
        await self.accept()
        # Join before reading the history: a message sent in between arrives twice, and the page knows its id.
        for group in (self.group, *GROUPS):
            await self.channel_layer.group_add(group, self.channel_name)
        await self.greet()
        presence.join(self.group, self, self.name)
        self.announcing = asyncio.create_task(self.announce(), name=f"announce {self.group}")

    async def disconnect(self, _code: int) -> None:
        if self.announcing is None:
            return
        self.announcing.cancel()
        presence.leave(self.group, self)
        for group in (self.group, *GROUPS):
            await self.channel_layer.group_discard(group, self.channel_name)
        await self.channel_layer.group_send(self.group, presence.announcement(self.group))

    async def receive_json(self, content: Any, **_: Any) -> None:
        """Publish what the page sends."""
        text = content.get("text") if isinstance(content, dict) else None
        if isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT:
            await self.channel_layer.group_send(self.group, self.message(text))
        else:
            await self.close(NO_MESSAGE)

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def chat_presence(self, event: dict[str, Any]) -> None:
        await self.send_json(event)

    async def row_change(self, event: dict[str, Any]) -> None:
        """A row of the table has changed, whoever did it: a trigger sends this."""
        await self.send_json(event)

    async def chat_gap(self, _: dict[str, Any]) -> None:
        """The page was too slow, and messages to it are lost. It reconnects and reads the history."""
        await self.close(TRY_AGAIN)

    async def chat_roll_call(self, _: dict[str, Any]) -> None:
        """A newcomer somewhere wants to know who is here."""
        await self.announce_once()

    async def greet(self) -> None:
        """Tell the page where it is and what was said."""
        other_port = int(OTHER_PORT) if OTHER_PORT else None
        await self.send_json({"type": "chat.welcome", "server": SERVER, "process": PROCESS, "other_port": other_port})
        await self.send_json({"type": "chat.history", "messages": await last_messages(self.group)})
        if GROUPS:
            await self.send_json(await all_orders())

    async def announce(self) -> None:
        """Call the roll for a newcomer, then repeat this process's list: pages forget lists that are not repeated."""
        try:
            await self.channel_layer.group_send(self.group, {"type": "chat.roll_call"})
            while True:
                await asyncio.sleep(ANNOUNCE_EVERY_SECONDS)
                await self.announce_once()
        except PgChannelsError:
            logger.exception("cannot announce who is in %s", self.group)
            await self.close(TRY_AGAIN)

    async def announce_once(self) -> None:
        """Announce who is connected to this process, unless another of its pages does."""
        if presence.speaks_for_process(self.group, self):
            await self.channel_layer.group_send(self.group, presence.announcement(self.group))

    def message(self, text: str) -> dict[str, Any]:
        """A message for the group; `sent_at` is in seconds of this machine's clock."""
        return {
            "type": "chat.message",
            "id": secrets.token_hex(8),
            "author": self.name,
            "text": text,
            "server": SERVER,
            "process": PROCESS,
            "sent_at": time.time(),
        }
