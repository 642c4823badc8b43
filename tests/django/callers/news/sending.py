from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer


def send(text):
    async_to_sync(get_channel_layer().group_send)("room", {"type": "chat.message", "text": text})


async def send_from_loop(text):
    await get_channel_layer().group_send("room", {"type": "chat.message", "text": text})
