"""A primary with a durable log that is killed, and the standby that takes its place."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final, TypeAlias

import pytest

from pgchannels import DatabaseUnavailable, Gap, GapReason, MessageLayer
from pgchannels.embedded import EmbeddedServer
from tests.faults.cluster import Cluster
from tests.support.connections import fetchval
from tests.support.durable import make_all_durable
from tests.support.proxy import Proxy
from tests.support.traffic import traffic
from tests.support.waiting import until, within

HEARTBEAT_SECONDS: Final = 0.3
KILLS: Final = int(os.environ.get("PGCHANNELS_TEST_KILLS", "10"))  # of a primary under load

Roads: TypeAlias = dict[EmbeddedServer, Proxy]


@pytest.fixture
def durable_cluster(cluster: Cluster) -> Cluster:
    """A pair whose log is durable; commits do not wait for the standby."""
    asyncio.run(make_all_durable(cluster.primary.url()))
    asyncio.run(cluster.checkpoint())
    return cluster


@pytest.fixture
async def roads(durable_cluster: Cluster) -> AsyncIterator[Roads]:
    """A proxy before each server."""
    async with AsyncExitStack() as stack:
        servers = (durable_cluster.primary, durable_cluster.standby)
        yield {server: await stack.enter_async_context(Proxy(server.url())) for server in servers}


def url_of(roads: Roads, options: str = "") -> str:
    """The URL of whichever is the primary."""
    hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in roads.values())
    return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=primary{options}"


async def fail_over(cluster: Cluster, roads: Roads) -> None:
    """Kill the primary, and promote the standby."""
    await asyncio.to_thread(cluster.kill_primary)
    roads[cluster.primary].refuse()
    await asyncio.to_thread(cluster.promote)


async def exchange(cluster: Cluster, roads: Roads) -> None:
    """Make the killed server a standby of the new primary, for which commits wait."""
    await asyncio.to_thread(cluster.exchange)
    roads[cluster.standby].restore()
    await cluster.wait_for_standby()


async def test_nothing_is_lost_when_a_synchronously_replicated_primary_is_killed_again_and_again(
    durable_cluster: Cluster, roads: Roads
) -> None:
    await durable_cluster.wait_for_standby()
    async with (
        MessageLayer(url_of(roads), heartbeat=HEARTBEAT_SECONDS, send_timeout=50) as receiver,
        MessageLayer(url_of(roads), heartbeat=HEARTBEAT_SECONDS, send_timeout=50) as sender,
    ):
        async with traffic([sender, receiver], receiver) as running:
            for kill in range(KILLS):
                async with asyncio.TaskGroup() as sending:
                    sending.create_task(within(running.send(40, senders=[0, 1])))
                    await within(running.arriving())
                    await within(fail_over(durable_cluster, roads))
                if kill + 1 < KILLS:
                    await within(exchange(durable_cluster, roads))
            await within(running.finish())
        running.verify()
    assert [stream.gaps for stream in running.streams] == [[], [], []]
    assert [len(stream.labels) for stream in running.streams] == [2 * 40 * KILLS] * 3


async def test_what_an_asynchronous_standby_lacks_is_a_gap_for_those_who_saw_it_and_for_nobody_else(
    durable_cluster: Cluster, roads: Roads
) -> None:
    gaps: list[Gap] = []
    async with (
        MessageLayer(url_of(roads), heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room", on_gap=gaps.append) as subscription,
    ):
        replicated = await layer.publish("room", "replicated")
        assert (await within(anext(subscription))).payload == "replicated"
        await until(durable_cluster.has_replayed_all)
        await asyncio.to_thread(durable_cluster.standby.kill)
        for number in range(10):
            lost = await layer.publish("room", f"lost {number}")
            assert (await within(anext(subscription))).payload == f"lost {number}"
        await asyncio.to_thread(durable_cluster.kill_primary)
        roads[durable_cluster.primary].refuse()
        await asyncio.to_thread(durable_cluster.standby.start)
        await asyncio.to_thread(durable_cluster.promote)
        after = await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"
        assert gaps == [Gap(GapReason.CRASH, None)]
        assert replicated < lost < after
        for since, is_told in ((replicated, False), (lost, True)):
            gaps.clear()
            async with layer.subscribe("room", since=since, on_gap=gaps.append) as again:
                assert (await within(anext(again))).payload == "after"
            assert gaps == [Gap(GapReason.CRASH, None)] * is_told


async def test_subscriber_who_saw_only_what_was_replicated_meets_no_gap(durable_cluster: Cluster, roads: Roads) -> None:
    async with (
        MessageLayer(url_of(roads), heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room") as subscription,  # a gap would be an error
    ):
        for number in range(20):
            await layer.publish("room", number)
            assert (await within(anext(subscription))).payload == number
        await until(durable_cluster.has_replayed_all)
        await fail_over(durable_cluster, roads)
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"
        assert [message.payload for message in await layer.history("room")] == [*range(20), "after"]


@pytest.mark.parametrize("level", ["off", "local"])
async def test_publish_waits_for_the_synchronous_standby_unless_the_url_says_otherwise(
    durable_cluster: Cluster, roads: Roads, level: str
) -> None:
    await durable_cluster.wait_for_standby()
    without = url_of(roads, f"&options=-csynchronous_commit%3D{level}")
    async with (
        MessageLayer(url_of(roads), send_timeout=2) as waiting,
        MessageLayer(without) as hasty,
        hasty.subscribe("room") as subscription,
    ):
        await within(waiting.publish("room", "replicated"))
        await asyncio.to_thread(durable_cluster.standby.kill)
        await within(hasty.publish("room", "not replicated"))
        with pytest.raises(DatabaseUnavailable) as raised:
            await within(waiting.publish("other", "in doubt"))
        assert raised.value.may_have_been_sent
        assert [(await within(anext(subscription))).payload for _ in range(2)] == ["replicated", "not replicated"]
        await asyncio.to_thread(durable_cluster.standby.start)
        await within(waiting.publish("room", "replicated again"))


async def test_answer_that_a_failover_took_waits_for_the_standby_when_it_is_looked_up(
    durable_cluster: Cluster, roads: Roads
) -> None:
    await durable_cluster.wait_for_standby()
    async with MessageLayer(url_of(roads), heartbeat=HEARTBEAT_SECONDS, send_timeout=40) as layer:
        await asyncio.to_thread(durable_cluster.standby.kill)
        publishing = asyncio.create_task(layer.publish("room", "committed here alone"))
        await until(lambda: is_waiting(durable_cluster, "deliver"))
        roads[durable_cluster.primary].cut()
        await until(lambda: is_waiting(durable_cluster, "emit_message"))
        assert not publishing.done()
        await asyncio.to_thread(durable_cluster.standby.start)
        position = await within(publishing)
        assert [message.position for message in await layer.history("room")] == [position]


async def is_waiting(cluster: Cluster, statement: str) -> bool:
    """Whether the commit of such a statement waits for the standby."""
    waiting = f"wait_event = 'SyncRep' AND query LIKE '%{statement}%'"
    return bool(await fetchval(cluster.primary.url(), f"SELECT count(*) > 0 FROM pg_stat_activity WHERE {waiting}"))
