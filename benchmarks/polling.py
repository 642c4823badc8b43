"""What `poll` costs and brings: `python -m benchmarks.polling --plot polling.svg`; without it, only prints a table.

For each interval, one layer that polls and one that publishes: the transactions that the first runs while nothing
comes, how long single messages take that come at random moments, and how long those of a steady stream take.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import matplotlib
from matplotlib.figure import Figure

from pgchannels import MessageLayer, Subscription
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer

_INTERVALS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LEAST_IDLE_SECONDS: Final = 5
_PAUSES: Final = (3, 5)  # in intervals: between single messages, long enough for the pause to be at its longest
_BLUE: Final = "#1f5fa8"
_GREEN: Final = "#2b8a5b"
_STREAM_PER_SECOND: Final = 20
_STREAM: Final = 100
_SESSIONS: Final = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgchannels%'"
_COMMITS: Final = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured for one interval; times are in seconds."""

    poll: float
    transactions_per_second: float
    single: Sequence[float]
    stream: Sequence[float]


def main() -> None:
    """Measure, print and perhaps draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.polling", description=__doc__)
    parser.add_argument("--plot", type=Path, help="draw what was measured into this file")
    parser.add_argument("--messages", type=int, default=12, help="single messages for each interval")
    parser.add_argument("--intervals", type=float, nargs="+", default=_INTERVALS)
    options = parser.parse_args()
    with EmbeddedServer() as server:
        found = asyncio.run(_measure_all(server.url(), options.intervals, options.messages))
    if options.plot is not None:
        draw(found, options.plot)


async def _measure_all(url: str, intervals: Sequence[float], messages: int) -> list[Figures]:
    await migrations.upgrade(url)
    await _leave_alone(url)
    print("poll      transactions/s  single p50     single max     stream p50", flush=True)
    found = []
    for poll in intervals:
        figures = Figures(poll, await _idle(url, poll), await _single(url, poll, messages), await _stream(url, poll))
        found.append(figures)
        times = [statistics.median(figures.single), max(figures.single), statistics.median(figures.stream)]
        columns = [f"{1000 * one:>9.0f} ms  " for one in times]
        print(f"{poll:<8g}  {figures.transactions_per_second:<14.2f}", *columns, flush=True)
    return found


async def _leave_alone(url: str) -> None:
    """Let nobody else run transactions in the database."""
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER SYSTEM SET autovacuum = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


async def _idle(url: str, poll: float) -> float:
    seconds = max(_LEAST_IDLE_SECONDS, 6 * poll)
    connection = await asyncpg.connect(url)
    begun: list[int] = []
    for lasting in (3 * poll, 3 * poll + seconds):  # opening has transactions of its own, and the pause must grow
        before = await _commits(connection)
        async with MessageLayer(url, poll=poll):
            await asyncio.sleep(lasting)
        begun.append(await _commits(connection) - before)
    await connection.close()
    return (begun[1] - begun[0]) / seconds


async def _commits(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    # A session counts its transactions when it ends.
    while await connection.fetchval(_SESSIONS):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    count: int = await connection.fetchval(_COMMITS)
    return count


async def _single(url: str, poll: float, messages: int) -> list[float]:
    async with MessageLayer(url, poll=poll) as layer, layer.subscribe("room") as subscription:
        receiving = asyncio.create_task(_received(subscription, messages))
        async with MessageLayer(url, heartbeat=60) as publisher:
            for _ in range(messages):
                await asyncio.sleep(random.uniform(*_PAUSES) * poll)
                await publisher.publish("room", time.monotonic())
            return await receiving


async def _stream(url: str, poll: float) -> list[float]:
    async with MessageLayer(url, poll=poll) as layer, layer.subscribe("room") as subscription:
        receiving = asyncio.create_task(_received(subscription, _STREAM))
        async with MessageLayer(url, heartbeat=60) as publisher:
            for _ in range(_STREAM):
                await asyncio.sleep(random.expovariate(_STREAM_PER_SECOND))
                await publisher.publish("room", time.monotonic())
            return await receiving


async def _received(subscription: Subscription, messages: int) -> list[float]:
    """How long each message took, from the call to its arrival."""
    times = []
    for _ in range(messages):
        message = await anext(subscription)
        times.append(time.monotonic() - message.payload)
    return times


def draw(found: Sequence[Figures], path: Path) -> None:
    """Draw latency and load against the interval."""
    matplotlib.rcParams |= {"font.size": 9, "svg.hashsalt": "benchmarks"}  # the same figures make the same file
    drawing = Figure(figsize=(8.5, 3.4), layout="constrained", facecolor="white")
    latency, load = drawing.subplots(1, 2)
    intervals = [one.poll for one in found]
    single, slowest = [statistics.median(one.single) for one in found], [max(one.single) for one in found]
    stream = [statistics.median(one.stream) for one in found]
    latency.plot(intervals, single, "o-", color=_BLUE, label="single messages, median")
    latency.plot(intervals, slowest, ".--", color=_BLUE, label="single messages, slowest")
    latency.plot(intervals, stream, "o-", color=_GREEN, label=f"{_STREAM_PER_SECOND} messages a second, median")
    latency.set_title("From call to delivery, seconds", loc="left", fontsize=9)
    load.plot(intervals, [one.transactions_per_second for one in found], "o-", color=_BLUE, label="an idle layer")
    load.set_title("Transactions a second", loc="left", fontsize=9)
    for axes in (latency, load):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("poll, seconds")
        axes.grid(color="#e3e5ea", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    drawing.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
