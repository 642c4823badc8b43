"""A URL of several hosts whose first one is a standby, which can be read and not written to."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from pgchannels import MessageLayer
from pgchannels.database import migrations
from tests.faults.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.waiting import within

HEARTBEAT_SECONDS: Final = 0.3
STARTUP: Final = b"user\0postgres"  # in the first packet of each connection
ATTRIBUTES: Final = ["?target_session_attrs=primary", "?target_session_attrs=read-write", ""]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A pair with the schema on both."""
    with Cluster() as cluster:
        asyncio.run(migrations.upgrade(cluster.primary.url()))
        asyncio.run(cluster.checkpoint())
        yield cluster


@pytest.fixture
async def to_primary(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.primary.url()) as proxy:
        yield proxy


@pytest.fixture
async def to_standby(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.standby.url()) as proxy:
        yield proxy


@pytest.fixture(params=ATTRIBUTES, ids=lambda attributes: attributes or "no attribute")
def url(request: pytest.FixtureRequest, to_primary: Proxy, to_standby: Proxy) -> str:
    """The standby's host before the primary's."""
    hosts = f"127.0.0.1:{to_standby.port},127.0.0.1:{to_primary.port}"
    return f"postgresql://postgres@{hosts}/postgres{request.param}"


async def require_traffic(layer: MessageLayer, text: str) -> None:
    """What is published comes, to a topic, a channel and a queue."""
    channel = await layer.new_channel()
    async with layer.subscribe("room") as subscription:
        await within(layer.publish("room", text))
        assert (await within(anext(subscription))).payload == text
    for target in (channel, "jobs"):
        await within(layer.send(target, text))
        assert await within(layer.receive(target)) == text


async def test_layer_opens_on_the_primary(url: str) -> None:
    async with MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as layer:
        await require_traffic(layer, "on the primary")


async def test_layer_returns_to_the_primary_after_a_lost_connection(url: str, to_primary: Proxy) -> None:
    async with MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as layer:
        for round_number in range(2):
            to_primary.cut()
            await require_traffic(layer, f"after cut {round_number}")


async def test_layer_returns_to_the_primary_after_it_was_away(url: str, to_primary: Proxy, to_standby: Proxy) -> None:
    async with (
        MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room") as subscription,
    ):
        to_primary.refuse()
        to_standby.freeze_at(STARTUP)
        to_primary.cut()
        publishing = asyncio.create_task(layer.publish("room", "while it was away"))
        await within(to_standby.holding(STARTUP))  # it was tried, and perhaps taken
        to_standby.restore()
        to_primary.restore()
        await within(publishing)
        assert (await within(anext(subscription))).payload == "while it was away"
        await require_traffic(layer, "after it was away")
