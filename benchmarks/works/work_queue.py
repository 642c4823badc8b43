"""A work queue: four producers send, each one message after another, four consumers take one after another."""

import asyncio
import os
import time
from typing import Any, Final

from benchmarks.actor import Stage
from benchmarks.contestants.contestant import Contestant
from benchmarks.crew import Crew, Figures
from benchmarks.works.messages import SMALL_BYTES, messages
from benchmarks.works.work import CHANNELS, CORE, OURS, Figure, Goal, Scale, Work, except_for

_QUEUE: Final = "jobs"
_WORKERS: Final = 4
_SILENCE_SECONDS: Final = 1.0
_FIRST_SECONDS: Final = 5.0


async def in_one_process(stage: Stage, *, seconds: float) -> Figures:
    """Producers and consumers are tasks of this process."""
    contestant = stage.contestant
    await contestant.open()
    await contestant.send(_QUEUE, {"type": "benchmark.warm-up"})
    await contestant.receive(_QUEUE)
    consuming = asyncio.gather(*[_consume(contestant) for _ in range(_WORKERS)])
    await asyncio.sleep(_SILENCE_SECONDS / 2)
    started = time.perf_counter()
    sent = sum(await asyncio.gather(*[_produce(contestant, started + seconds) for _ in range(_WORKERS)]))
    return _rate([{"started": started, "sent": sent}], await consuming)


async def produce(stage: Stage, *, seconds: float) -> Figures:
    """One producer."""
    await stage.contestant.open()
    await stage.contestant.send("warm-up", {"type": "benchmark.warm-up"})
    await stage.ready()
    await asyncio.sleep(_SILENCE_SECONDS / 2)
    started = time.perf_counter()
    return {"started": started, "sent": await _produce(stage.contestant, started + seconds)}


async def consume(stage: Stage) -> Figures:
    """One consumer."""
    await stage.contestant.open()
    mine = f"warm-up.{os.getpid()}"
    receiving = asyncio.create_task(stage.contestant.receive(mine))
    await asyncio.sleep(_SILENCE_SECONDS / 2)
    await stage.contestant.send(mine, {"type": "benchmark.warm-up"})
    await receiving
    await stage.ready()
    return await _consume(stage.contestant)


async def _produce(contestant: Contestant, until: float) -> int:
    made = messages(SMALL_BYTES)
    sent = 0
    while time.perf_counter() < until:
        await contestant.send(_QUEUE, next(made))
        sent += 1
    return sent


async def _consume(contestant: Contestant) -> Figures:
    """Receive until nothing comes any more."""
    received, latest = 0, 0.0
    # One task that receives: some libraries pay dearly for a receive that is cancelled.
    receiving = asyncio.create_task(contestant.receive(_QUEUE))
    while (await asyncio.wait([receiving], timeout=_SILENCE_SECONDS if received else _FIRST_SECONDS))[0]:
        receiving.result()
        received += 1
        latest = time.perf_counter()
        receiving = asyncio.create_task(contestant.receive(_QUEUE))
    receiving.cancel()
    await asyncio.wait([receiving])
    return {"received": received, "latest": latest}


def _rate(sent: list[Figures], received: list[Figures]) -> Figures:
    sent_count, received_count = sum(part["sent"] for part in sent), sum(part["received"] for part in received)
    seconds = max(part["latest"] for part in received) - min(part["started"] for part in sent)
    return {
        "rate": min(sent_count, received_count) / seconds,
        "lost": max(sent_count - received_count, 0),
        "twice": max(received_count - sent_count, 0),
    }


async def _measure_in_one(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("work_queue.in_one_process", seconds=scale.seconds)


async def _measure_in_eight(crew: Crew, scale: Scale) -> Figures:
    consumers: list[tuple[str, dict[str, Any]]] = [("work_queue.consume", {})] * _WORKERS
    producers = [("work_queue.produce", {"seconds": scale.seconds})] * _WORKERS
    figures = await crew.play_together(*consumers, *producers)
    return _rate(figures[_WORKERS:], figures[:_WORKERS])


_FIGURES: Final = {"rate": Figure("messages", "/s")}
_GOALS: Final = (Goal("rate", CORE, at_least=5),)
_NO_QUEUE: Final = {"redis-pubsub": "has no queues: every process gets every message"}

WORKS: Final = (
    Work(
        name="queue-one",
        title="work queue, 4 producers and 4 consumers in one process",
        contestants=(OURS, "pgchannels-api", "pgchannels-claim", *except_for(OURS, "redis-pubsub", of=CHANNELS)),
        measure=_measure_in_one,
        figures=_FIGURES,
        goals=_GOALS,
        left_out=_NO_QUEUE,
    ),
    Work(
        name="queue-eight",
        title="work queue, 4 producers and 4 consumers in 8 processes",
        contestants=(OURS, "pgchannels-api", "pgchannels-claim", "redis-core", "channels-nats"),
        measure=_measure_in_eight,
        figures=_FIGURES,
        goals=_GOALS,
        processes=2 * _WORKERS,
        rounds=3,
        left_out={
            **_NO_QUEUE,
            "in-memory": "one process only",
            "channels-postgres": "a channel belongs to the first process that receives from it",
        },
    ),
)
