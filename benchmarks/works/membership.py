"""Joining and leaving groups: the first member of this process in a group, and a further one."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.actor import Stage
from benchmarks.contestants.channels_layer import ChannelsLayer
from benchmarks.crew import Crew, Figures
from benchmarks.works.work import CHANNELS, PUBSUB, Figure, Goal, Scale, Work

_PAUSE_SECONDS: Final = 0.05


async def join_and_leave(stage: Stage, *, groups: int) -> Figures:
    """Two channels join and leave groups, one call after the other."""
    assert isinstance(stage.contestant, ChannelsLayer)
    layer = stage.contestant.layer
    one, two = await layer.new_channel(), await layer.new_channel()
    receiving = [asyncio.create_task(layer.receive(channel)) for channel in (one, two)]
    await layer.group_add("warm-up", one)
    await asyncio.sleep(_PAUSE_SECONDS)
    names = [f"group{number}" for number in range(groups)]
    figures = {
        "add first": await _seconds_each(names, lambda name: layer.group_add(name, one)),
        "add further": await _seconds_each(names, lambda name: layer.group_add(name, two)),
        "discard one": await _seconds_each(names, lambda name: layer.group_discard(name, two)),
        "discard last": await _seconds_each(names, lambda name: layer.group_discard(name, one)),
    }
    for task in receiving:
        task.cancel()
    await asyncio.wait(receiving)
    return figures


async def _seconds_each(names: list[str], call: Callable[[str], Awaitable[object]]) -> float:
    seconds = []
    for name in names:
        started = time.perf_counter()
        await call(name)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


async def _measure(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("membership.join_and_leave", groups=scale.messages)


WORKS: Final = (
    Work(
        name="membership",
        title="group_add and group_discard",
        contestants=CHANNELS,
        measure=_measure,
        figures={
            "add first": Figure("add the first member", "s"),
            "add further": Figure("add a further one", "s"),
            "discard one": Figure("discard one of two", "s"),
            "discard last": Figure("discard the last", "s"),
        },
        goals=(
            Goal("add first", PUBSUB, at_most=1.5),
            Goal("add further", PUBSUB, at_most=1.0),
            Goal("discard one", PUBSUB, at_most=1.0),
            Goal("discard last", PUBSUB, at_most=1.5),
        ),
    ),
)
