"""Seconds to open a layer, up to the first member that listens, and from the first call to its delivery."""

import asyncio
import time
from typing import Final

from benchmarks.actor import Stage
from benchmarks.crew import Crew, Figures
from benchmarks.works.messages import SMALL_BYTES, messages
from benchmarks.works.work import EVERYBODY, Figure, Goal, Scale, Work

_GROUP: Final = "opening"
_GOAL_SECONDS: Final = 0.05


async def open_and_send(stage: Stage) -> Figures:
    """In a process that has the library imported, and nothing else done."""
    started = time.perf_counter()
    await stage.contestant.open()
    member = await stage.contestant.join(_GROUP)
    opened = time.perf_counter()
    receiving = asyncio.create_task(member.receive())
    await stage.contestant.publish(_GROUP, next(messages(SMALL_BYTES)))
    await receiving
    return {"open": opened - started, "first": time.perf_counter() - opened}


async def _measure(crew: Crew, _scale: Scale) -> Figures:
    return await crew.play("opening.open_and_send")


WORKS: Final = (
    Work(
        name="opening",
        title="opening a layer; the first message",
        contestants=EVERYBODY,
        measure=_measure,
        figures={"open": Figure("open and join", "s"), "first": Figure("first message", "s")},
        goals=(
            Goal("open", None, at_most=_GOAL_SECONDS),
            Goal("first", None, at_most=_GOAL_SECONDS),
            Goal("open", None, at_most=_GOAL_SECONDS, of="pgchannels-api"),
            Goal("first", None, at_most=_GOAL_SECONDS, of="pgchannels-api"),
        ),
    ),
)
