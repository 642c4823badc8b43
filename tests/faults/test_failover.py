"""From a primary that is gone to the standby that takes its place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, GapReason, MessageLayer
from pgchannels.database import migrations
from pgchannels.database.grants import grant
from tests.conftest import url_of_role
from tests.faults.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.traffic import traffic
from tests.support.waiting import until, within

HEARTBEAT_SECONDS = 0.3
ROLE = "pgchannels_application"


@pytest.fixture
async def to_primary(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.primary.url()) as proxy:
        yield proxy


@pytest.fixture
async def to_standby(cluster: Cluster) -> AsyncIterator[Proxy]:
    async with Proxy(cluster.standby.url()) as proxy:
        yield proxy


@pytest.fixture
def url(to_primary: Proxy, to_standby: Proxy) -> str:
    """The URL of whichever is the primary."""
    hosts = f"127.0.0.1:{to_primary.port},127.0.0.1:{to_standby.port}"
    return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=primary"


async def fail_over(cluster: Cluster, to_primary: Proxy) -> None:
    """The primary's machine is there, and nobody listens on it any more."""
    await asyncio.to_thread(cluster.kill_primary)
    to_primary.refuse()
    await asyncio.to_thread(cluster.promote)


async def test_traffic_follows_a_failover(cluster: Cluster, to_primary: Proxy, url: str) -> None:
    async with (
        MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as receiver,
        MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as sender,
    ):
        async with traffic([sender, receiver], receiver) as running:
            await within(running.send(20, senders=[0, 1]))
            await until(cluster.has_replayed_all)
            async with asyncio.TaskGroup() as sending:
                sending.create_task(within(running.send(100, senders=[0, 1])))
                await within(running.arriving())
                await within(fail_over(cluster, to_primary))
            await within(running.finish())
        running.verify()
        assert [[gap.reason for gap in stream.gaps] for stream in running.streams] == [[GapReason.CRASH]] * 3


async def test_layer_follows_a_failover_from_a_primary_that_says_nothing_any_more(
    cluster: Cluster, to_primary: Proxy, url: str
) -> None:
    async with (
        MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room", on_gap=lambda _: None) as subscription,
    ):
        await layer.publish("room", "before")
        assert (await within(anext(subscription))).payload == "before"
        await until(cluster.has_replayed_all)
        to_primary.freeze()
        await asyncio.to_thread(cluster.kill_primary)
        await asyncio.to_thread(cluster.promote)
        with pytest.raises(DatabaseUnavailable, match="another server took over") as raised:
            await within(layer.publish("room", "perhaps taken by the primary"))
        assert raised.value.may_have_been_sent
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"


async def test_messages_after_a_failover_to_a_standby_that_missed_the_epoch_are_delivered(
    cluster: Cluster, to_primary: Proxy, url: str
) -> None:
    await asyncio.to_thread(cluster.standby.kill)
    async with (
        MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room", on_gap=lambda _: None) as subscription,
    ):
        for number in range(10):  # positions far ahead of those that the standby begins with
            await layer.publish("room", number)
            assert (await within(anext(subscription))).payload == number
        await asyncio.to_thread(cluster.kill_primary)
        to_primary.refuse()
        await asyncio.to_thread(cluster.standby.start)
        await asyncio.to_thread(cluster.promote)
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"


async def test_standby_that_missed_the_retention_keeps_messages_as_long(
    cluster: Cluster, to_primary: Proxy, url: str
) -> None:
    await asyncio.to_thread(cluster.standby.kill)
    async with MessageLayer(url, expiry=60, heartbeat=HEARTBEAT_SECONDS) as layer:
        await asyncio.to_thread(cluster.kill_primary)
        to_primary.refuse()
        await asyncio.to_thread(cluster.standby.start)
        await asyncio.to_thread(cluster.promote)
        await within(layer.publish("room", "after"))
        await until(lambda: keeps_messages(cluster.standby.url()))


async def keeps_messages(url: str) -> bool:
    connection = await asyncpg.connect(url)
    retention: timedelta = await connection.fetchval("SELECT retention FROM pgchannels.log")
    await connection.close()
    return retention >= timedelta(seconds=60)


async def test_layer_opens_on_the_promoted_standby(cluster: Cluster, to_primary: Proxy, url: str) -> None:
    await fail_over(cluster, to_primary)
    async with MessageLayer(url) as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", "on the new primary")
        assert (await within(anext(subscription))).payload == "on the new primary"


async def test_layer_follows_a_failover_soon_after_the_upgrade() -> None:
    """The standby has not yet written the new sequence to disk, and has none that works when it is promoted."""
    with Cluster() as cluster:
        await migrations.upgrade(cluster.primary.url())
        await execute(cluster.primary.url(), f"CREATE ROLE {ROLE} LOGIN")
        await grant(cluster.primary.url(), ROLE)
        await until(cluster.has_replayed_all)
        await asyncio.to_thread(cluster.kill_primary)
        await asyncio.to_thread(cluster.promote)
        url = url_of_role(cluster.standby.url(), ROLE)
        async with AsyncExitStack() as stack:  # which all find that there is no log
            layers = [MessageLayer(url) for _ in range(8)]
            await within(asyncio.gather(*[stack.enter_async_context(layer) for layer in layers]))
            subscription = await stack.enter_async_context(layers[0].subscribe("room"))
            await within(asyncio.gather(*[layer.publish("room", "after") for layer in layers]))
            assert [(await within(anext(subscription))).payload for _ in layers] == ["after"] * len(layers)


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()
