"""Memory of the process: by idle subscriber, and by message that waits for one."""

import asyncio
import gc
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.actor import Stage
from benchmarks.crew import Crew, Figures
from benchmarks.works.fan_out import join_all
from benchmarks.works.messages import LARGE_BYTES, SMALL_BYTES, messages
from benchmarks.works.work import Figure, Goal, Scale, Work, except_for

_GROUP: Final = "memory"
_PAUSE_SECONDS: Final = 0.5
_AT_ONCE: Final = 50
_GOAL_BYTES: Final = 4_096


async def subscribe(stage: Stage, *, subscribers: int) -> Figures:
    """Join, then wait in a task each, as consumers do."""
    await stage.contestant.open()
    first = await stage.contestant.join(_GROUP)
    before = resident_bytes()
    members = await join_all(stage.contestant, _GROUP, subscribers)
    joined = resident_bytes()
    tasks = [asyncio.create_task(member.receive()) for member in (first, *members)]
    await asyncio.sleep(_PAUSE_SECONDS)
    waiting = resident_bytes()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return {"joined": (joined - before) / subscribers, "waiting": (waiting - before) / subscribers}


async def leave_waiting(stage: Stage, *, count: int, size: int) -> Figures:
    """Send to a subscriber that does not receive."""
    contestant = stage.contestant
    await contestant.open()
    member = await contestant.join(_GROUP)
    made = messages(size)
    for _ in range(_AT_ONCE):
        await contestant.publish(_GROUP, next(made))
        await member.receive()
    before = resident_bytes()
    for _ in range(count // _AT_ONCE):
        await asyncio.gather(*[contestant.publish(_GROUP, next(made)) for _ in range(_AT_ONCE)])
    await asyncio.sleep(_PAUSE_SECONDS)
    return {"message": (resident_bytes() - before) / count, "share": (resident_bytes() - before) / count / size}


def resident_bytes() -> int:
    """The memory of this process that is in use, after what is not has been given back."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


async def _measure_subscribers(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("memory.subscribe", subscribers=scale.subscribers)


async def _measure_messages(crew: Crew, scale: Scale, *, size: int) -> Figures:
    count = scale.waiting_messages * SMALL_BYTES // size
    return await crew.play("memory.leave_waiting", count=max(count, _AT_ONCE), size=size)


_ALL: Final = except_for("bare", "litestar")

WORKS: Final = (
    Work(
        name="memory-subscriber",
        title="memory of an idle subscriber",
        contestants=_ALL,
        measure=_measure_subscribers,
        figures={"joined": Figure("joined", "bytes"), "waiting": Figure("and its task that waits", "bytes")},
        goals=(Goal("joined", None, at_most=_GOAL_BYTES), Goal("waiting", None, at_most=_GOAL_BYTES)),
        rounds=3,
    ),
    *(
        Work(
            name=f"memory-message-{name}",
            title=f"memory of a message of {title} that waits",
            contestants=except_for("redis-core", of=_ALL),
            measure=partial(_measure_messages, size=size),
            figures={"message": Figure("a message", "bytes"), "share": Figure("of its size", "")},
            goals=(Goal("share", None, at_most=2),),
            rounds=3,
            left_out={"redis-core": "they wait in Redis"},
        )
        for name, title, size in (("200", "200 B", SMALL_BYTES), ("4k", "4 kB", LARGE_BYTES))
    ),
)
