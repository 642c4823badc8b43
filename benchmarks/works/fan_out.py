"""One message to a group with many members: seconds from the call until the last of them has received it."""

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks.actor import Stage
from benchmarks.contestants.contestant import Contestant, Member
from benchmarks.crew import Crew, Figures, PartFailed
from benchmarks.works.messages import SMALL_BYTES, messages
from benchmarks.works.work import PUBSUB, Figure, Goal, Scale, Work, except_for

_GROUP: Final = "fan-out"
_JOIN_AT_ONCE: Final = 100
_PROCESSES: Final = 8
_MEMBERS_EACH: Final = 10
_PAUSE_SECONDS: Final = 0.05


class Audience:
    """Members that all wait for messages, each in a task of its own, as consumers do."""

    def __init__(self, members: list[Member]) -> None:
        self._missing = 0
        self._complete = asyncio.Event()
        self._last_at = 0.0
        self.members = members
        self._tasks = [asyncio.create_task(self._hear(member)) for member in members]

    def expect(self) -> None:
        """Expect one message for each member from now on."""
        self._missing += len(self.members)
        self._complete.clear()

    async def complete(self) -> float:
        """Wait until all that is expected has come; returns when the last one had."""
        await self._complete.wait()
        return self._last_at

    async def end(self) -> None:
        """Receive no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def _hear(self, member: Member) -> None:
        while True:
            await member.receive()
            self._missing -= 1
            if self._missing <= 0:
                self._last_at = time.perf_counter()
                self._complete.set()


async def join_all(contestant: Contestant, group: str, count: int) -> list[Member]:
    """Join so many members, some at the same time."""
    members: list[Member] = []
    while len(members) < count:
        at_once = min(_JOIN_AT_ONCE, count - len(members))
        members += await asyncio.gather(*[contestant.join(group) for _ in range(at_once)])
    return members


async def in_one_process(stage: Stage, *, members: int, repeats: int) -> Figures:
    """All members here."""
    contestant = stage.contestant
    await contestant.open()
    audience = Audience(await join_all(contestant, _GROUP, members))
    await asyncio.sleep(_PAUSE_SECONDS)
    made = messages(SMALL_BYTES)
    seconds = []
    for _ in range(1 + repeats):
        audience.expect()
        started = time.perf_counter()
        await contestant.publish(_GROUP, next(made))
        seconds.append(await audience.complete() - started)
        await asyncio.sleep(_PAUSE_SECONDS)
    await audience.end()
    return {"last": statistics.median(seconds[1:])}


async def hear(stage: Stage, *, members: int, repeats: int) -> Figures:
    """Some of the members here; tells when the last of them had each message."""
    await stage.contestant.open()
    audience = Audience(await join_all(stage.contestant, _GROUP, members))
    audience.expect()
    await stage.ready()
    arrived = []
    for _ in range(1 + repeats):
        arrived.append(await audience.complete())
        audience.expect()
    return {"arrived": arrived}


async def send(stage: Stage, *, repeats: int) -> Figures:
    """Send to members in other processes; tells when."""
    await stage.contestant.open()
    await stage.ready()
    made = messages(SMALL_BYTES)
    called = []
    for _ in range(1 + repeats):
        await asyncio.sleep(2 * _PAUSE_SECONDS)
        called.append(time.perf_counter())
        await stage.contestant.publish(_GROUP, next(made))
    return {"called": called}


async def _measure(crew: Crew, scale: Scale, *, members: int) -> Figures:
    return await crew.play("fan_out.in_one_process", members=min(members, scale.largest_group), repeats=scale.repeats)


async def _measure_spread(crew: Crew, scale: Scale) -> Figures:
    repeats = 2 * scale.repeats
    hearing = [("fan_out.hear", {"members": _MEMBERS_EACH, "repeats": repeats})] * _PROCESSES
    *heard, sent = await crew.play_together(*hearing, ("fan_out.send", {"repeats": repeats}))
    last: list[float] = [max(arrived) for arrived in zip(*[part["arrived"] for part in heard], strict=True)]
    seconds = [end - begin for begin, end in zip(sent["called"], last, strict=True)]
    if min(seconds) < 0:
        raise PartFailed("some messages came more than once: which delivery was the last cannot be told")
    return {"last": statistics.median(seconds[1:])}


_FIGURES: Final = {"last": Figure("call to last delivery", "s")}
_GOALS: Final = (Goal("last", PUBSUB, at_most=1.0),)
_ALL: Final = except_for("bare")
_NOT_THE_BARE: Final = {"bare": "has no members"}
_WORK: Callable[..., Work] = partial(Work, figures=_FIGURES, goals=_GOALS)

WORKS: Final = (
    *(
        _WORK(
            name=f"fan-out-{members}",
            title=f"one message to a group of {members:,}",
            contestants=_ALL,
            measure=partial(_measure, members=members),
            rounds=3 if members > 1_000 else 5,
            left_out=_NOT_THE_BARE,
        )
        for members in (1, 100, 1_000, 10_000)
    ),
    _WORK(
        name="fan-out-processes",
        title=f"one message to a group of {_PROCESSES * _MEMBERS_EACH} members in {_PROCESSES} processes",
        contestants=except_for("in-memory", of=_ALL),
        measure=_measure_spread,
        processes=_PROCESSES + 1,
        rounds=3,
        left_out={**_NOT_THE_BARE, "in-memory": "one process only"},
    ),
)
