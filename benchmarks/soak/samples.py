"""What the database and the traffic look like, once a second; on Linux, since it reads /proc."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.soak.traffic import Latencies, Traffic
from pgchannels.embedded import EmbeddedServer

_INTERVAL_SECONDS: Final = 1

# With indexes and TOAST; the slots of a table are added up.
_TABLES: Final = """
    SELECT root.relname AS name, sum(pg_total_relation_size(part.oid))::bigint AS bytes,
           sum(pg_stat_get_dead_tuples(part.oid))::bigint AS dead_tuples,
           count(*) FILTER (WHERE part.relispartition) AS slots
    FROM pg_class AS part JOIN pg_class AS root ON root.oid = coalesce(pg_partition_root(part.oid), part.oid)
    WHERE part.relnamespace = 'pgchannels'::regnamespace AND part.relkind IN ('r', 'p', 'S')
    GROUP BY root.relname
"""
_CATALOG: Final = """
    SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
    WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look at everything; what was published and the seconds of CPU count from the beginning."""

    seconds: float
    published: int
    payload_bytes: int
    window_bytes: int
    table_bytes: dict[str, int]
    dead_tuples: dict[str, int]
    slots: int
    catalog_bytes: int
    resident_bytes: int
    layer_cpu_seconds: float
    server_cpu_seconds: float
    held: bool
    latencies: Latencies

    @property
    def schema_bytes(self) -> int:
        """All relations of the schema."""
        return sum(self.table_bytes.values())


class Sampler:
    """Takes the samples, on a connection of its own."""

    def __init__(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        traffic: Traffic,
        samples: list[Sample],
        *,
        postmaster: int,
    ) -> None:
        self.is_held = False
        self._connection = connection
        self._traffic = traffic
        self._samples = samples
        self._postmaster = postmaster
        self._began = time.perf_counter()

    async def run(self) -> None:
        """Take a sample each second, for ever."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS - (time.perf_counter() - self._began) % _INTERVAL_SECONDS)
            await self.take()

    async def take(self) -> None:
        """Take a sample now."""
        tables = await self._connection.fetch(_TABLES)
        catalog_bytes = await self._connection.fetchval(_CATALOG)
        self._samples.append(
            Sample(
                seconds=time.perf_counter() - self._began,
                published=self._traffic.published,
                payload_bytes=self._traffic.payload_bytes,
                window_bytes=self._traffic.window.bytes_now(),
                table_bytes={table["name"]: table["bytes"] for table in tables},
                dead_tuples={table["name"]: table["dead_tuples"] for table in tables},
                slots=sum(table["slots"] for table in tables),
                catalog_bytes=catalog_bytes,
                resident_bytes=_resident_bytes(),
                layer_cpu_seconds=time.process_time(),
                server_cpu_seconds=_cpu_seconds_of_tree(self._postmaster),
                held=self.is_held,
                latencies=self._traffic.take_latencies(),
            )
        )


@asynccontextmanager
async def sampling(server: EmbeddedServer, traffic: Traffic, samples: list[Sample]) -> AsyncIterator[Sampler]:
    """Take samples for as long as the block, the first and the last one at its ends."""
    connection = await asyncpg.connect(server.url())
    sampler = Sampler(connection, traffic, samples, postmaster=server.pid)
    try:
        await sampler.take()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sampler.run())
            yield sampler
            running.cancel()
    finally:
        await sampler.take()
        connection.terminate()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds_of_tree(postmaster: int) -> float:
    """What a server has used, with its processes that run and those that have ended."""
    ticks = sum(_ticks(postmaster))
    for process in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            ticks += sum(_ticks(int(process))[:2])
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(process: int) -> list[int]:
    """User and system time, its own and that of its ended children."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]
