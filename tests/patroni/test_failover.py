"""From one primary to the next, whatever ended the first one, as docs/how-to/high-availability.md says."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final, TypeAlias

import pytest

from pgchannels import Gap, GapReason, MessageLayer
from tests.support.durable import make, make_all_durable
from tests.support.patroni import PatroniCluster
from tests.support.patroni.configuration import haproxy_settings
from tests.support.snippets import snippet
from tests.support.traffic import Traffic, traffic
from tests.support.waiting import within

PAGE: Final = "docs/how-to/high-availability.md"
# Longer than a failover takes, and with room for all that is sent meanwhile: no send fails in it.
new_layer = partial(MessageLayer, heartbeat=0.3, send_timeout=60, capacity=100_000)

Fault: TypeAlias = Callable[[PatroniCluster], AbstractContextManager[None]]


def standby_first(cluster: PatroniCluster) -> str:
    return cluster.url(*cluster.standbys(), cluster.leader())


def primary_first(cluster: PatroniCluster) -> str:
    return cluster.url(cluster.leader(), *cluster.standbys())


@contextmanager
def switchover(cluster: PatroniCluster) -> Iterator[None]:
    """patronictl switchover."""
    cluster.switch_over(to=cluster.standbys()[0])
    yield


@contextmanager
def killed(cluster: PatroniCluster) -> Iterator[None]:
    """SIGKILL of the primary and its Patroni."""
    leader = cluster.leader()
    cluster.kill(leader)
    cluster.wait_for_new_leader(leader)
    yield
    cluster.start(leader)


@contextmanager
def isolated(cluster: PatroniCluster) -> Iterator[None]:
    """A primary that clients reach, and that does not reach etcd: it steps down before another one may lead."""
    leader = cluster.leader()
    cluster.isolate(leader)
    cluster.wait_for_new_leader(leader)
    yield
    cluster.reunite(leader)


@contextmanager
def hanging(cluster: PatroniCluster) -> Iterator[None]:
    """A primary that stands still, accepts connections and answers nothing, and goes on after another one has led."""
    leader = cluster.leader()
    cluster.freeze(leader)
    cluster.wait_for_new_leader(leader)
    yield
    cluster.thaw(leader)


CASES = [(switchover, standby_first), (isolated, primary_first), (hanging, standby_first)]


@pytest.mark.parametrize(("fault", "url_of"), CASES, ids=lambda one: one.__name__)
async def test_traffic_follows_the_primary(
    fault: Fault, url_of: Callable[[PatroniCluster], str], cluster: PatroniCluster
) -> None:
    url = await asyncio.to_thread(url_of, cluster)
    for stream in (await traffic_through(fault, cluster, url)).streams:
        assert [gap.reason for gap in stream.gaps] == [GapReason.CRASH]
        assert not stream.unsent


async def traffic_through(fault: Fault, cluster: PatroniCluster, url: str) -> Traffic:
    """Let two layers send before, while and after another server becomes the primary; what they lost is told."""
    async with (
        new_layer(url) as receiver,
        new_layer(url) as sender,
        traffic([sender, receiver], receiver) as running,
    ):
        happening = fault(cluster)
        causing = asyncio.create_task(asyncio.to_thread(happening.__enter__))
        try:
            while not causing.done():
                await within(running.send(10, senders=[0, 1]))
                await asyncio.sleep(0.05)  # Patroni needs the processor, too
            await causing
            await within(running.send(10, senders=[0, 1]))
        finally:
            await asyncio.wait([causing])
            await asyncio.to_thread(happening.__exit__, None, None, None)
        await within(running.finish())
    running.verify()
    return running


def publish_surely() -> Any:
    """The function of the page."""
    names: dict[str, Any] = {}
    exec(snippet(PAGE, "publish_surely"), names)
    return names["publish_surely"]


def shape(settings: str) -> list[str]:
    """The settings of HAProxy without names, addresses and ports."""
    anonymous = re.sub(r"(server) \S+|\d+\.\d+\.\d+\.\d+|(?<=[: ])\d{4,5}\b", r"\1", settings)
    return sorted(" ".join(line.split()) for line in anonymous.splitlines() if line != "defaults")


def test_settings_of_haproxy_are_those_of_the_tests(prepared: PatroniCluster) -> None:
    settings = haproxy_settings(prepared.proxy_port, list(prepared.nodes.values()))
    assert shape(snippet(PAGE, "httpchk", "text")) == shape(settings)


async def test_every_message_is_published_through_a_switchover(cluster: PatroniCluster) -> None:
    publish, heard = publish_surely(), list[object]()
    async with (
        MessageLayer(cluster.url(), capacity=100_000) as layer,
        layer.subscribe("room", on_gap=heard.append) as subscription,
    ):
        switching = asyncio.create_task(asyncio.to_thread(cluster.switch_over, to=cluster.standbys()[0]))
        count = 0
        while not switching.done():
            await within(publish(layer, "room", count := count + 1))
            await asyncio.sleep(0.005)  # as above
        await switching
        await within(publish(layer, "room", "last"))
        while heard[-1:] != ["last"]:
            heard.append((await within(anext(subscription))).payload)
    [gap] = [told for told in heard if isinstance(told, Gap)]
    assert gap.reason is GapReason.CRASH
    before, after = heard[: heard.index(gap)], heard[heard.index(gap) + 1 : -1]
    assert before == list(range(1, len(before) + 1))
    assert after == list(range(count - len(after) + 1, count + 1))


@pytest.fixture
async def durable_cluster(cluster: PatroniCluster) -> AsyncIterator[PatroniCluster]:
    """The cluster with a durable log and a synchronous standby."""
    url = f"{cluster.url()}?target_session_attrs=primary"
    await make_all_durable(url)
    await asyncio.to_thread(cluster.make_synchronous, True)
    await asyncio.to_thread(cluster.wait_until_whole)
    yield cluster
    await asyncio.to_thread(cluster.make_synchronous, False)
    await make(url, "fast")


async def test_failover_to_a_synchronous_standby_loses_nothing_of_a_durable_log(
    durable_cluster: PatroniCluster,
) -> None:
    for stream in (await traffic_through(killed, durable_cluster, durable_cluster.proxied_url)).streams:
        assert stream.gaps == []
        assert set(stream.labels) == set(stream.sent)
        assert not stream.unsent | stream.uncertain
