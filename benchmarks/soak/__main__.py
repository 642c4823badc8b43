"""A million messages beside a transaction left open: `python -m benchmarks.soak`, on an embedded, durable PostgreSQL.

Exit status 1: a message was lost, came twice or out of order, or the tables grew beyond a multiple of the traffic in
their window. `docs/soak.md` tells the method.
"""

import argparse
import asyncio
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.soak.report import Report
from benchmarks.soak.samples import Sampler, sampling
from benchmarks.soak.strangers import DumpFailed, held_dump, open_transaction
from benchmarks.soak.traffic import Traffic
from pgchannels import MessageLayer
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer

# A row takes 1.7 times its payload here, and stays for up to 2.4 retentions: slots are looked at every two seconds.
_MULTIPLE: Final = 5
_MULTIPLE_DURING_DUMP: Final = 10  # what the dump has locked stays beside what comes


def main() -> int:
    """Run the soak, print its report, and return the exit status."""
    options = parse_options()
    with EmbeddedServer(durable=True) as server:
        report = asyncio.run(soak(server, options))
    print(report)
    if options.plot:
        from benchmarks.soak.plot import draw  # matplotlib is needed for a plot only

        draw(report, options.plot)
    return 1 if report.failures else 0


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="how many to send (default: a million)")
    parser.add_argument("--rate", type=float, default=4_000, help="messages a second; 0: as many as go (default: 4000)")
    parser.add_argument("--expiry", type=float, default=5, help="seconds; the log's retention, too (default: 5)")
    parser.add_argument("--multiple", type=float, help="windows of traffic allowed (default: 5, with a dump 10)")
    parser.add_argument("--during", choices=["pg_dump"], help="hold a dump for the middle third of the messages")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="draw sizes and latencies into a file: soak.svg")
    return parser.parse_args(arguments)


async def soak(server: EmbeddedServer, options: argparse.Namespace) -> Report:
    """Send all messages, and look at them and at the tables meanwhile."""
    url = server.url()
    await migrations.upgrade(url)
    async with open_transaction(url), MessageLayer(url, expiry=options.expiry) as layer:
        version_of_server, retention = await _server_says(url)
        print(_versions(version_of_server), flush=True)
        report = Report(
            traffic=Traffic(layer, window_seconds=retention, messages_per_second=options.rate),
            retention_seconds=retention,
            multiple=options.multiple or (_MULTIPLE_DURING_DUMP if options.during else _MULTIPLE),
        )
        await _fill(report, server, options)
    return report


async def _fill(report: Report, server: EmbeddedServer, options: argparse.Namespace) -> None:
    traffic = report.traffic
    try:
        async with (
            traffic.received(),
            sampling(server, traffic, report.samples) as sampler,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(traffic.send(options.messages))
            if options.during:
                group.create_task(_hold_dump(server, traffic, sampler, options.messages))
    except* (DumpFailed, TimeoutError) as errors:
        report.stopped_by += map(repr, _leaves(errors))


async def _hold_dump(server: EmbeddedServer, traffic: Traffic, sampler: Sampler, messages: int) -> None:
    await traffic.reached(messages // 3)
    async with held_dump(server.url(), server.binaries):
        sampler.is_held = True
        await traffic.reached(2 * messages // 3)
    sampler.is_held = False


async def _server_says(url: str) -> tuple[str, float]:
    """The server's version, and for how many seconds the log keeps messages."""
    connection = await asyncpg.connect(url)
    try:
        retention = await connection.fetchval("SELECT retention FROM pgchannels.log")
        return await connection.fetchval("SHOW server_version"), retention.total_seconds()
    finally:
        await connection.close()


def _versions(version_of_server: str) -> str:
    packages = ", ".join(f"{package} {version(package)}" for package in ("pgchannels", "asyncpg", "sqlalchemy"))
    return f"PostgreSQL {version_of_server}, Python {platform.python_version()}, {packages}, {os.cpu_count()} cores"


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
