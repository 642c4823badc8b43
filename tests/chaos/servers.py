"""The servers of a run, and the faults that are theirs: servers of its own, or a Patroni cluster."""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

from pgchannels.embedded import EmbeddedServer
from tests.chaos.faults import Fault, Kind
from tests.support.patroni import PatroniCluster

Crash = Callable[[str], AbstractContextManager[None]]  # around what ends an epoch of the log of a server, by its name


class Servers(Protocol):
    """Where the log is, or the logs of several servers of a layer; an only one has no name."""

    @property
    def kinds(self) -> Mapping[Kind, int]:
        """The faults that these servers have, with their weights."""

    @property
    def urls(self) -> Mapping[str, str]:
        """By server, the URL of whichever takes writes."""

    async def cause(self, fault: Fault, crash: Crash) -> None:
        """Let a fault of these servers happen; returns when they are as before."""


class OwnServers:
    """Servers that belong to the run, each with a log of its own."""

    kinds: Final = {Kind.TERMINATE: 5, Kind.RESTART: 2, Kind.RESTART_AT_ONCE: 2, Kind.CRASH: 2}

    def __init__(self, servers: Mapping[str, EmbeddedServer]) -> None:
        self._servers = servers

    @property
    def urls(self) -> dict[str, str]:
        """Their URLs."""
        return {name: server.url() for name, server in self._servers.items()}

    async def cause(self, fault: Fault, crash: Crash) -> None:
        """Restart or crash one of them."""
        name, server = random.Random(fault.seconds).choice([*self._servers.items()])
        match fault.kind:
            case Kind.RESTART:
                await asyncio.to_thread(server.restart, "fast")
            case Kind.RESTART_AT_ONCE:
                with crash(name):
                    await asyncio.to_thread(server.restart, "immediate")
            case _:
                with crash(name):
                    await asyncio.to_thread(server.kill)
                await asyncio.sleep(fault.seconds)
                await asyncio.to_thread(server.start)


class PatroniServers:
    """A Patroni cluster."""

    kinds: Final = {Kind.TERMINATE: 4, Kind.SWITCH_OVER: 4, Kind.FAIL_OVER: 4, Kind.ISOLATE: 2, Kind.HANG: 2}

    def __init__(self, cluster: PatroniCluster) -> None:
        self._cluster = cluster

    @property
    def urls(self) -> dict[str, str]:
        """The URL of the primary."""
        return {"": f"{self._cluster.url()}?target_session_attrs=primary"}

    async def cause(self, fault: Fault, crash: Crash) -> None:
        """Let another server be the primary."""
        cluster = self._cluster
        leader = await asyncio.to_thread(cluster.leader)
        if fault.kind is Kind.SWITCH_OVER:
            to = await asyncio.to_thread(self._candidate, fault)
            with crash(""):
                await asyncio.to_thread(cluster.switch_over, to=to)
        else:
            begin, end = {
                Kind.FAIL_OVER: (cluster.kill, cluster.start),
                Kind.ISOLATE: (cluster.isolate, cluster.reunite),
                Kind.HANG: (cluster.freeze, cluster.thaw),
            }[fault.kind]
            with crash(""):
                await asyncio.to_thread(begin, leader)
                await asyncio.to_thread(cluster.wait_for_new_leader, leader)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(end, leader)
        await asyncio.to_thread(cluster.wait_until_whole)

    def _candidate(self, fault: Fault) -> str:
        if self._cluster.is_synchronous:
            return self._cluster.synchronous_standby()
        return random.Random(fault.seconds).choice(self._cluster.standbys())
