"""Transactional messages beside a transaction left open, then without it: `python -m benchmarks.soak.outbox`.

Prints a table: for each tenth of the messages, what one transaction took and how large the outbox was. Exit status 1:
a message was lost, publishing became slower beside the open transaction, or the outbox did not stay flat after it.
"""

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Final

import asyncpg

from benchmarks.soak.strangers import open_transaction
from pgchannels import MessageLayer
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer

_TENTHS: Final = 10
_MOST_TIMES_SLOWER: Final = 2.0  # the first tenth against the last: a machine that is busy meanwhile may double it
_MOST_TIMES_LARGER: Final = 1.5
_VACUUM_SECONDS: Final = 180
_PAUSE_SECONDS: Final = 1.0
_SIZE: Final = "SELECT pg_total_relation_size('pgchannels.outbox')"
_SHORT_NAPS: Final = "ALTER SYSTEM SET autovacuum_naptime = '1s'"  # a minute is PostgreSQL's own


@dataclass(frozen=True, slots=True)
class Sample:
    """A tenth of the messages: what a transaction took, and the outbox behind it."""

    phase: str
    messages: int
    median_seconds: float
    outbox_bytes: int

    def __str__(self) -> str:
        return (
            f"| {self.phase} | {self.messages:,} | {self.median_seconds * 1e6:.0f} µs"
            f" | {self.outbox_bytes / 1024 / 1024:.1f} MB |"
        )


async def soak(server: EmbeddedServer, count: int) -> list[str]:
    """Publish so many messages beside an open transaction, and as many after it; return what failed."""
    url = server.url()
    await migrations.upgrade(url)
    connection = await asyncpg.connect(url)
    await connection.execute(_SHORT_NAPS)
    await connection.execute("SELECT pg_reload_conf()")
    print("| | messages | median transaction | outbox |\n|---|---|---|---|", flush=True)
    async with MessageLayer(url, expiry=5) as layer, layer.subscribe("soak", when_full="drop_oldest") as subscription:
        async with open_transaction(url):
            beside = await _publish(layer, connection, "beside it", count)
        await _vacuumed(connection)
        after = await _publish(layer, connection, "after it", count)
        last = await layer.publish("soak", "last")
        failures = _failures(beside, after)
        received = 0
        async for message in subscription:
            received += message.position != last
            if message.position == last:
                break
        if received + subscription.lost != 2 * count // _TENTHS * _TENTHS:
            failures.append(f"{received + subscription.lost} messages of {2 * count} came")
    await connection.close()
    return failures


async def _publish(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]", phase: str, count: int
) -> list[Sample]:
    samples = []
    for tenth in range(1, _TENTHS + 1):
        seconds = []
        for number in range(count // _TENTHS):
            started = time.perf_counter()
            async with connection.transaction():
                await layer.publish("soak", number, connection=connection)
            seconds.append(time.perf_counter() - started)
        size = await connection.fetchval(_SIZE)
        samples.append(Sample(phase, tenth * (count // _TENTHS), statistics.median(seconds), size))
        print(samples[-1], flush=True)
    return samples


async def _vacuumed(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Wait until autovacuum has emptied the outbox."""
    async with asyncio.timeout(_VACUUM_SECONDS):
        while await connection.fetchval("SELECT pg_relation_size('pgchannels.outbox')"):  # noqa: ASYNC110
            await asyncio.sleep(_PAUSE_SECONDS)


def _failures(beside: list[Sample], after: list[Sample]) -> list[str]:
    failures = [
        f"{samples[0].phase}, a transaction became slower: {samples[0]} → {samples[-1]}"
        for samples in (beside, after)
        if samples[-1].median_seconds > _MOST_TIMES_SLOWER * samples[0].median_seconds
    ]
    half = _TENTHS // 2
    before, later = (max(sample.outbox_bytes for sample in part) for part in (after[:half], after[half:]))
    if later > _MOST_TIMES_LARGER * before:
        failures.append(f"after the open transaction, the outbox still grows: {after[half - 1]} → {after[-1]}")
    return failures


def main() -> int:
    """Run, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.outbox", description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000, help="beside it, and as many after it")
    options = parser.parse_args()
    with EmbeddedServer(durable=True) as server:
        failures = asyncio.run(soak(server, options.messages))
    print(*failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
