"""What was said before. Channels has no history; the engine below its layer has, under the same names."""

from typing import Any

from django.conf import settings

from pgchannels import MessageLayer

layer = MessageLayer(settings.CHANNEL_LAYERS["default"]["CONFIG"]["url"])


async def last_messages(group: str) -> list[dict[str, Any]]:
    """The last messages of a group that are still in the log, oldest first."""
    await layer.open()
    recent = [message.payload for message in await layer.history(group, limit=1000)]
    said = [payload for payload in recent if isinstance(payload, dict) and payload.get("type") == "chat.message"]
    return said[-50:]
