"""`channel_layer.sync`: the verbs that send, without an event loop."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull, MessageTooLarge

from pgchannels import LayerClosed, MessageLayer, WouldBlock
from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

MESSAGE: dict[str, Any] = {"type": "chat.message", "text": "hello"}


async def test_threads_send_to_groups_and_channels(configured_layer: PostgresChannelLayer) -> None:
    channel = await configured_layer.new_channel()
    await asyncio.to_thread(configured_layer.sync.group_add, "room", channel)
    await asyncio.to_thread(configured_layer.sync.group_send, "room", MESSAGE)
    await asyncio.to_thread(configured_layer.sync.send, channel, {"type": "last"})
    assert await within(configured_layer.receive(channel)) == MESSAGE
    assert await within(configured_layer.receive(channel)) == {"type": "last"}
    await asyncio.to_thread(configured_layer.sync.group_discard, "room", channel)
    await asyncio.to_thread(configured_layer.sync.group_send, "room", MESSAGE)
    await asyncio.to_thread(configured_layer.sync.send, channel, {"type": "last"})
    assert await within(configured_layer.receive(channel)) == {"type": "last"}


async def test_thread_flushes(configured_layer: PostgresChannelLayer) -> None:
    await configured_layer.send("work_queue", MESSAGE)
    await asyncio.to_thread(configured_layer.sync.flush)
    await configured_layer.send("work_queue", {"type": "last"})
    assert await within(configured_layer.receive("work_queue")) == {"type": "last"}


async def test_errors_are_those_of_channels(database_url: str) -> None:
    layer = PostgresChannelLayer(url=database_url, capacity=1)
    await asyncio.to_thread(layer.sync.send, "work_queue", MESSAGE)
    with pytest.raises(ChannelFull):
        await asyncio.to_thread(layer.sync.send, "work_queue", MESSAGE)
    for send in (layer.sync.send, layer.sync.group_send):
        with pytest.raises(MessageTooLarge):
            await asyncio.to_thread(send, "room", {"data": bytes(65 * 1024 * 1024)})
    with pytest.raises(TypeError, match="is no group"):
        layer.sync.group_send("no group!", MESSAGE)
    with pytest.raises(TypeError, match="dict"):
        layer.sync.send("work_queue", "no dict")  # type: ignore[arg-type]
    assert layer.ChannelFull is ChannelFull
    assert layer.MessageTooLarge is MessageTooLarge
    await layer.close()


async def test_call_in_the_thread_of_an_event_loop_says_what_to_do(configured_layer: PostgresChannelLayer) -> None:
    with pytest.raises(WouldBlock, match="await the asynchronous one"):
        configured_layer.sync.group_send("room", MESSAGE)


def test_receiving_from_a_channel_of_an_event_loop_that_has_ended_is_refused_with_the_way_out(
    database_url: str,
) -> None:
    layer = PostgresChannelLayer(database_url)
    channel = async_to_sync(layer.new_channel)()
    for name in (channel, f"{channel.partition('!')[0]}!"):
        with pytest.raises(LayerClosed, match=r"in the same event loop.*or receive from a name without '!'"):
            async_to_sync(layer.receive)(name)

    async def in_one_function() -> Any:
        own = await layer.new_channel()
        await layer.send(own, MESSAGE)
        return await within(layer.receive(own))

    assert async_to_sync(in_one_function)() == MESSAGE
    layer.sync.send("jobs", MESSAGE)
    assert async_to_sync(layer.receive)("jobs") == MESSAGE


PROGRAM = """
import sys
from concurrent.futures import ThreadPoolExecutor
from django.conf import settings
settings.configure(CHANNEL_LAYERS={"default": {
    "BACKEND": "pgchannels.django.PostgresChannelLayer", "CONFIG": {"url": sys.argv[1]}}})
from channels.layers import get_channel_layer
send = get_channel_layer().sync.group_send
with ThreadPoolExecutor(10) as threads:
    list(threads.map(lambda number: send("room", {"type": "chat.message", "number": number}), range(500)))
"""


async def test_process_without_an_event_loop_sends_and_ends_quietly(database_url: str, layer: MessageLayer) -> None:
    async with layer.subscribe("room") as subscription:
        process = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", PROGRAM, database_url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
        numbers = [(await within(anext(subscription))).payload["number"] for _ in range(500)]
    assert sorted(numbers) == list(range(500))
