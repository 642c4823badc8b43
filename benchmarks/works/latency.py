"""Seconds from a call to the delivery of its message: one sender, one message after another."""

import asyncio
import statistics
import time
from functools import partial
from typing import Final

from benchmarks.actor import Stage
from benchmarks.contestants.contestant import Member
from benchmarks.crew import Crew, Figures
from benchmarks.works.messages import LARGE_BYTES, SMALL_BYTES, messages
from benchmarks.works.work import EVERYBODY, PUBSUB, Figure, Goal, Scale, Work, except_for

_GROUP: Final = "latency"
_WARM_UP: Final = 20
_PAUSE_SECONDS: Final = 0.001
_LIMIT_SECONDS: Final = 10


async def in_one_process(stage: Stage, *, size: int, count: int) -> Figures:
    """Send in this process, and receive in it before the next one is sent."""
    contestant = stage.contestant
    await contestant.open()
    member = await contestant.join(_GROUP)
    made = messages(size)
    seconds = []
    for _ in range(_WARM_UP + count):
        receiving = asyncio.create_task(_received(member))
        await asyncio.sleep(0)  # a receiver waits already
        started = time.perf_counter()
        await contestant.publish(_GROUP, next(made))
        _, arrived = await receiving
        seconds.append(arrived - started)
    return percentiles(seconds[_WARM_UP:])


async def send(stage: Stage, *, size: int, count: int) -> Figures:
    """Send from this process, the next one a millisecond after the call has returned."""
    await stage.contestant.open()
    await stage.ready()
    made = messages(size)
    for _ in range(_WARM_UP + count):
        await stage.contestant.publish(_GROUP, next(made))
        await asyncio.sleep(_PAUSE_SECONDS)
    return {}


async def receive(stage: Stage, *, count: int) -> Figures:
    """Receive in this process; the messages say when they were sent."""
    await stage.contestant.open()
    member = await stage.contestant.join(_GROUP)
    await stage.ready()
    seconds = []
    for _ in range(_WARM_UP + count):
        sent_at, arrived = await _received(member)
        seconds.append(arrived - sent_at)
    return percentiles(seconds[_WARM_UP:])


async def _received(member: Member) -> tuple[float, float]:
    async with asyncio.timeout(_LIMIT_SECONDS):
        message = await member.receive()
    return message["sent_at"], time.perf_counter()


def percentiles(seconds: list[float]) -> Figures:
    """Median and 99th percentile."""
    return {"p50": statistics.median(seconds), "p99": statistics.quantiles(seconds, n=100)[98]}


async def measure_in_one(crew: Crew, scale: Scale, *, size: int) -> Figures:
    """One process."""
    return await crew.play("latency.in_one_process", size=size, count=scale.messages)


async def _in_two(crew: Crew, scale: Scale, *, size: int) -> Figures:
    received, _ = await crew.play_together(
        ("latency.receive", {"count": scale.messages}), ("latency.send", {"size": size, "count": scale.messages})
    )
    return received


_FIGURES: Final = {"p50": Figure("p50", "s"), "p99": Figure("p99", "s")}
_GOALS: Final = (Goal("p50", PUBSUB, at_most=1.0), Goal("p99", PUBSUB, at_most=1.2))

WORKS: Final = tuple(
    Work(
        name=f"latency-{name}-{where}",
        title=f"one sender, {title}, {where} process{'es' * (processes - 1)}: call to delivery",
        contestants=EVERYBODY if processes == 1 else except_for("in-memory"),
        measure=partial(measure, size=size),
        figures=_FIGURES,
        goals=_GOALS,
        processes=processes,
        left_out={} if processes == 1 else {"in-memory": "one process only"},
    )
    for where, processes, measure in (("one", 1, measure_in_one), ("two", 2, _in_two))
    for name, title, size in (("200", "200 B", SMALL_BYTES), ("4k", "4 kB", LARGE_BYTES))
)
