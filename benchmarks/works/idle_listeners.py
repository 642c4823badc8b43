"""What other processes cost that listen to the same database and hear nothing."""

import asyncio
from typing import Final
from uuid import uuid4

import asyncpg

from benchmarks.actor import Stage
from benchmarks.contestants import make
from benchmarks.contestants.bare import Bare
from benchmarks.crew import Crew, Figures
from benchmarks.works import latency, throughput
from benchmarks.works.messages import SMALL_BYTES
from benchmarks.works.work import OURS, Figure, Scale, Work

_COUNTS: Final = (0, 10, 50)


async def idle(stage: Stage, *, nodes: int) -> Figures:
    """Hold so many nodes open, each with a topic of its own, or so many bare listeners, until told to end."""
    stop = asyncio.Event()
    holding = [asyncio.create_task(_hold(stage, stop, number)) for number in range(nodes)]
    await asyncio.sleep(1)
    await stage.ready()
    stop.set()
    if holding:
        await asyncio.wait(holding)
    return {}


async def _hold(stage: Stage, stop: asyncio.Event, number: int) -> None:
    if isinstance(stage.contestant, Bare):
        connection = await asyncpg.connect(stage.contestant.addresses.postgres)
        await connection.add_listener(str(uuid4()), lambda *_: None)
        await stop.wait()
        connection.terminate()
        return
    contestant = make("pgchannels-api", stage.contestant.addresses, capacity=stage.contestant.capacity)
    await contestant.open()
    await contestant.join(f"idle{number}")
    await stop.wait()
    await contestant.close()


async def _measure(crew: Crew, scale: Scale) -> Figures:
    figures: Figures = {}
    for count in _COUNTS:
        async with crew.holding("idle_listeners.idle", nodes=count):
            rate = await throughput.measure_in_one(crew, scale, size=SMALL_BYTES)
            seconds = await latency.measure_in_one(crew, scale, size=SMALL_BYTES)
        figures |= {f"rate {count}": rate["rate"], f"p50 {count}": seconds["p50"]}
    return figures | {
        f"{kind} left {count}": figures[f"{kind} {count}"] / figures[f"{kind} 0"]
        for kind in ("rate", "p50")
        for count in _COUNTS[1:]
    }


WORKS: Final = (
    Work(
        name="idle-listeners",
        title="beside idle listening nodes: 100 senders, then one after another, 200 B",
        contestants=(OURS, "bare"),
        measure=_measure,
        figures={
            **{f"rate {count}": Figure(f"messages, {count} idle", "/s") for count in _COUNTS},
            **{f"rate left {count}": Figure(f"{count} idle to none", "") for count in _COUNTS[1:]},
            **{f"p50 {count}": Figure(f"p50, {count} idle", "s") for count in _COUNTS},
            **{f"p50 left {count}": Figure(f"p50, {count} idle to none", "") for count in _COUNTS[1:]},
        },
        processes=2,
        rounds=3,
        limit_seconds=180,
    ),
)
