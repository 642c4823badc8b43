"""Opening, closing, loops, threads and forks of a layer with several servers."""

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from pgchannels import ConfigurationError, LayerClosed, MessageLayer
from tests.servers.topics import ON_A, ON_B
from tests.support.waiting import until, within

_FORKING = """
import os, sys
from pgchannels import MessageLayer

layer = MessageLayer({"a": sys.argv[1], "b": sys.argv[2]})
layer.sync.publish_many([(topic, "parent") for topic in sys.argv[3:]])
if (child := os.fork()) == 0:
    layer.sync.publish_many([(topic, "child") for topic in sys.argv[3:]])
    layer.sync.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
layer.sync.publish_many([(topic, "parent again") for topic in sys.argv[3:]])
"""


async def test_one_database_by_two_addresses_is_refused(urls: dict[str, str]) -> None:
    url = make_url(urls["a"])
    folder = Path(str(url.query["host"]))
    other = url.set(query={**url.query, "host": str(folder / ".." / folder.name)})
    with pytest.raises(ConfigurationError, match="'a', 'b' are one database, by two addresses"):
        await within(MessageLayer({"a": url, "b": other}).open())


async def nodes_on(url: str) -> int:
    """How many nodes a server knows."""
    connection = await asyncpg.connect(url)
    try:
        count: int = await connection.fetchval("SELECT count(*) FROM pgchannels.node")
        return count
    finally:
        await connection.close()


def test_loop_that_ends_without_closing_leaves_nothing_behind(urls: dict[str, str]) -> None:
    layer = MessageLayer(urls)

    async def publish_and_receive() -> None:
        await layer.open()
        async with layer.subscribe(ON_A, ON_B) as subscription:
            await layer.publish_many([(ON_A, 1), (ON_B, 2)])
            assert sorted([(await within(anext(subscription))).payload for _ in range(2)]) == [1, 2]

    for _ in range(2):
        asyncio.run(publish_and_receive())
    assert [asyncio.run(nodes_on(url)) for url in urls.values()] == [0, 0]
    assert [thread.name for thread in threading.enumerate() if "pgchannels" in thread.name] == []


def test_subscription_can_be_entered_again_in_another_loop(urls: dict[str, str]) -> None:
    layer = MessageLayer(urls)
    subscription = layer.subscribe(ON_A, ON_B)

    async def receive_again() -> None:
        async with layer:
            await layer.publish(ON_A, "missed")
            async with subscription.resume(timedelta(minutes=1)):
                while (await within(anext(subscription))).payload != "missed":
                    pass
                receiving = asyncio.ensure_future(anext(subscription))
                await asyncio.sleep(0)
                receiving.cancel()

    for _ in range(2):
        asyncio.run(receive_again())


async def test_closing_ends_every_wait(urls: dict[str, str]) -> None:
    layer = MessageLayer(urls)
    await layer.open()
    channel = await layer.new_channel()
    async with layer.subscribe(ON_A, ON_B) as subscription:
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(layer.receive(channel)),
            asyncio.ensure_future(layer.receive("jobs")),
            asyncio.ensure_future(anext(subscription)),
        ]
        await asyncio.sleep(0)
        await within(layer.close())
        for one in waiting:
            with pytest.raises(LayerClosed):
                await within(one)
    assert [await nodes_on(url) for url in urls.values()] == [0, 0]
    async with layer:
        with pytest.raises(LayerClosed, match="made in another event loop or process, or before"):
            await layer.receive(channel)
        await layer.publish(ON_A, "works again")


async def test_cancelled_opening_leaves_nothing_open(urls: dict[str, str]) -> None:
    for steps in range(0, 40, 4):
        layer = MessageLayer(urls)
        opening = asyncio.ensure_future(layer.open())
        for _ in range(steps):
            await asyncio.sleep(0.001)
        opening.cancel()
        await asyncio.wait([opening])
        await layer.close()
    for url in urls.values():
        await until(lambda url=url: has_no_nodes(url))  # type: ignore[misc]


async def has_no_nodes(url: str) -> bool:
    """Whether a server knows no node."""
    return not await nodes_on(url)


async def test_receivers_that_are_cancelled_lose_nothing(urls: dict[str, str]) -> None:
    async with MessageLayer(urls, heartbeat=0.2) as layer:
        received = []
        for number in range(20):
            waiting = asyncio.ensure_future(layer.receive("jobs"))
            await asyncio.sleep(0)
            await layer.send("jobs", number)
            waiting.cancel()
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                received.append(waiting.result())
        received += [await within(layer.receive("jobs")) for _ in range(20 - len(received))]
        assert sorted(received) == list(range(20))


async def test_child_of_a_fork_begins_with_nothing(urls: dict[str, str]) -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", _FORKING, *urls.values(), ON_A, ON_B]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=120)
    async with MessageLayer(urls) as layer:
        for topic in (ON_A, ON_B):
            texts = [message.payload for message in await layer.history(topic)]
            assert texts == ["parent", "child", "parent again"]
