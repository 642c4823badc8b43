"""The servers of a run, and the faults that are theirs: one server, or a Patroni cluster."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from pgchannels.embedded import EmbeddedServer
from tests.chaos.faults import Fault, Kind
from tests.support.patroni import PatroniCluster

Crash = Callable[[], AbstractContextManager[None]]  # around what ends an epoch of the log


class Servers(Protocol):
    """Where the log is."""

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """The faults that these servers have, with their weights."""

    @property
    def url(self) -> str:
        """The URL of whichever takes writes."""

    @property
    def urls(self) -> Sequence[str]:
        """The URLs of all that a process of the run may connect to, each of which gets a proxy."""

    async def cause(self, fault: Fault, crash: Crash) -> None:
        """Let a fault of these servers happen; returns when they are as before."""


class OneServer:
    """A server of its own."""

    kinds: Final = {Kind.TERMINATE: 5, Kind.RESTART: 2, Kind.RESTART_AT_ONCE: 2, Kind.CRASH: 2}

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        """Its URL."""
        return self._server.url()

    @property
    def urls(self) -> list[str]:
        """The same."""
        return [self.url]

    async def cause(self, fault: Fault, crash: Crash) -> None:
        """Restart or crash."""
        match fault.kind:
            case Kind.RESTART:
                await asyncio.to_thread(self._server.restart, "fast")
            case Kind.RESTART_AT_ONCE:
                with crash():
                    await asyncio.to_thread(self._server.restart, "immediate")
            case _:
                with crash():
                    await asyncio.to_thread(self._server.kill)
                await asyncio.sleep(fault.seconds)
                await asyncio.to_thread(self._server.start)


class PatroniServers:
    """A Patroni cluster.

    :param through_haproxy: the processes of the run know the address of HAProxy alone, not those of the servers.
    """

    kinds: Final = {Kind.TERMINATE: 4, Kind.SWITCH_OVER: 4, Kind.FAIL_OVER: 4, Kind.ISOLATE: 2, Kind.HANG: 2}

    def __init__(self, cluster: PatroniCluster, *, through_haproxy: bool) -> None:
        self._cluster = cluster
        self._through_haproxy = through_haproxy

    @property
    def url(self) -> str:
        """The URL of all servers."""
        return f"{self._cluster.url()}?target_session_attrs=primary"

    @property
    def urls(self) -> list[str]:
        """The URL of HAProxy, or of each server."""
        cluster = self._cluster
        return [cluster.proxied_url] if self._through_haproxy else [cluster.url(name) for name in cluster.nodes]

    async def cause(self, fault: Fault, crash: Crash) -> None:
        """Let another server be the primary."""
        cluster = self._cluster
        leader = await asyncio.to_thread(cluster.leader)
        if fault.kind is Kind.SWITCH_OVER:
            to = await asyncio.to_thread(self._candidate, fault)
            with crash():
                await asyncio.to_thread(cluster.switch_over, to=to)
        else:
            begin, end = {
                Kind.FAIL_OVER: (cluster.kill, cluster.start),
                Kind.ISOLATE: (cluster.isolate, cluster.reunite),
                Kind.HANG: (cluster.freeze, cluster.thaw),
            }[fault.kind]
            with crash():
                await asyncio.to_thread(begin, leader)
                await asyncio.to_thread(cluster.wait_for_new_leader, leader)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(end, leader)
        await asyncio.to_thread(cluster.wait_until_whole)

    def _candidate(self, fault: Fault) -> str:
        if self._cluster.is_synchronous:
            return self._cluster.synchronous_standby()
        return random.Random(fault.seconds).choice(self._cluster.standbys())
