"""What a process sends while it ends; Python 3.12 starts no thread any more then."""

import asyncio
import sys
from collections.abc import Sequence

import pytest

from pgchannels import MessageLayer
from tests.support.proxy import Proxy
from tests.support.subprocesses import communicate

SCRIPT = """
import atexit, sys
from pgchannels import DatabaseRefused, LayerClosed, MessageLayer

_, url, first = sys.argv
layer = MessageLayer(url)

@atexit.register
def say_goodbye():
    try:
        layer.sync.publish("room", "goodbye")
    except (DatabaseRefused, LayerClosed) as error:
        print(error)

if first:
    layer.sync.publish("room", first)
"""


async def test_process_that_has_sent_sends_at_its_end_without_a_word(database_url: str) -> None:
    assert await output(database_url, "hello") == ""
    assert await published(database_url) == ["hello", "goodbye"]


async def test_process_that_sends_nothing_before_its_end_is_told_to(database_url: str) -> None:
    assert "send before" in await output(database_url, "")
    assert await published(database_url) == []


LEFT_LOOP = """
import asyncio, sys
from pgchannels import MessageLayer

async def use(layer):
    await layer.open()
    await layer.publish("room", "hello")

layer = MessageLayer(sys.argv[1])
loop = asyncio.new_event_loop()
loop.run_until_complete(use(layer))
loop.close()
"""
BUSY_THREAD = """
import sys, threading
from pgchannels import MessageLayer, PgChannelsError

layer, has_begun = MessageLayer(sys.argv[1]), threading.Event()

def send():
    while True:
        try:
            layer.sync.publish("room", "hello")
        except PgChannelsError:
            return
        has_begun.set()

threading.Thread(target=send, daemon=True).start()
has_begun.wait(60)
"""


@pytest.mark.parametrize("script", [LEFT_LOOP, BUSY_THREAD], ids=["closed loop", "busy thread"])
async def test_process_that_ends_with_something_left_says_nothing(database_url: str, script: str) -> None:
    assert await output(database_url, "", script=script, options=["-W", "ignore::ResourceWarning"]) == ""
    assert "hello" in await published(database_url)


async def output(database_url: str, first: str, *, script: str = SCRIPT, options: Sequence[str] = ()) -> str:
    """What a process prints that runs this script, on a host whose name is looked up."""
    async with Proxy(database_url) as proxy:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", *options, "-c", script),
            *(proxy.url.replace("127.0.0.1", "localhost"), first),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        text, _ = await communicate(process)
    assert process.returncode == 0, text.decode()
    return text.decode()


async def published(database_url: str) -> list[object]:
    async with MessageLayer(database_url) as layer:
        return [message.payload for message in await layer.history("room")]
