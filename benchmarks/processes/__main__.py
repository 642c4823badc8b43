"""Measures what listening processes cost: `python -m benchmarks.processes`."""

import argparse
import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.processes.measure import Observation, measure
from benchmarks.processes.record import Record, measured_rows, modelled_rows
from benchmarks.processes.subscriptions import measure_subscriptions
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer

_PROCESSES: Final = (1, 10, 50, 100, 200, 300)
_BARE: Final = (200, 500, 1_000)
_SPARE_CONNECTIONS: Final = 60


def main() -> None:
    """Measure, print, and write a record and a plot if a directory is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--processes", type=int, nargs="*", default=_PROCESSES, help="that listen")
    parser.add_argument("--bare", type=int, nargs="*", default=_BARE, help="sessions that listen, without processes")
    parser.add_argument("--subscriptions", type=int, default=100_000, help="in one process")
    parser.add_argument("--seconds", type=float, default=6, help="of each kind of sending")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--save", type=Path, help="a directory for processes.json and .svg; needs matplotlib")
    parser.add_argument("--draw", type=Path, help="a processes.json: draw it again in place of measuring")
    options = parser.parse_args()
    record = Record.read(options.draw) if options.draw else measured(options)
    print({name: f"{1e6 * value:.1f} µs" for name, value in asdict(record.coefficients).items()})
    for one in record.observations:
        print(_line(one, one.counts.cpu_seconds(record.coefficients)))
    print(record.subscriptions, *measured_rows(record), *modelled_rows(record.coefficients), sep="\n")
    if options.save is not None:
        save(record, options.save)


def _line(one: Observation, cores_by_model: float) -> str:
    happened = one.counts
    latency = "" if one.p50 is None or one.p99 is None else f"  p50 {1e3 * one.p50:.2f}, p99 {1e3 * one.p99:.2f} ms"
    return (
        f"{one.processes:>5} {'bare' if one.is_bare else '':<5}{one.kind:<11}"
        f"{happened.messages:>7,.0f} msg/s {happened.commits:>6,.0f} commits/s"
        f" {one.wakes_seen:>9,.0f} of {happened.wakes:>9,.0f} wakes/s"
        f"  {one.cores:.3f} cores, by the model {cores_by_model:.3f}{latency}"
    )


def measured(options: argparse.Namespace) -> Record:
    """Measure each number of processes in turn, so that a slow moment of the machine does not hit one of them alone."""
    from benchmarks.processes.fit import fitted

    most = max([2 * max(options.processes, default=0), max(options.bare, default=0)]) + _SPARE_CONNECTIONS
    observations: list[Observation] = []
    with EmbeddedServer(durable=True, settings={"max_connections": str(most)}) as server:
        asyncio.run(migrations.upgrade(server.url()))
        for number in range(options.rounds):
            for count in options.processes:
                observations += asyncio.run(
                    measure(server, processes=count, seconds=options.seconds, round_number=number)
                )
                print(f"round {number}, {count} processes: done", flush=True)
        for count in options.bare:
            observations += asyncio.run(
                measure(server, processes=count, seconds=options.seconds, round_number=0, is_bare=True)
            )
            print(f"{count} bare listeners: done", flush=True)
        sockets = options.subscriptions and asyncio.run(measure_subscriptions(server.url(), options.subscriptions))
        return Record(asyncio.run(_version(server.url())), fitted(observations), observations, sockets or None)


def save(record: Record, directory: Path) -> None:
    """Write the record and the plot."""
    from benchmarks.processes.plot import draw

    directory.mkdir(parents=True, exist_ok=True)
    record.write(directory / "processes.json")
    draw(record.observations, record.coefficients, directory / "processes.svg")


async def _version(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return f"PostgreSQL {await connection.fetchval('SHOW server_version')}"
    finally:
        await connection.close()


if __name__ == "__main__":
    main()
