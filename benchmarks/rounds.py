"""Runs works: all contestants side by side, round after round, every other round in the opposite order."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.contestants import ENTRIES, WITH_OUR_SQL, Addresses, missing
from benchmarks.crew import Actors, Crew, Figures, PartFailed
from benchmarks.databases import settle
from benchmarks.record import Record
from benchmarks.units import formatted
from benchmarks.works import Work
from benchmarks.works.work import Scale

CAPACITY: Final = 10_000_000


class Run:
    """Works, contestants, and the record that grows."""

    def __init__(
        self,
        works: Sequence[Work],
        contestants: set[str],
        scale: Scale,
        record: Record,
        *,
        rounds: int | None = None,
        after_each: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self.record = record
        self.failed: list[str] = []  # what of ours failed by an error, which is a defect
        self._works = works
        self._contestants = contestants
        self._scale = scale
        self._rounds = rounds
        self._after_each = after_each
        self._actors = Actors(share_databases=scale.share_databases)
        self._started = time.monotonic()

    async def run(self, addresses: Addresses) -> None:
        """Run all works."""
        try:
            for number, work in enumerate(self._works, 1):
                self._say(f"[{number}/{len(self._works)}] {work.name}: {work.title}")
                await settle(addresses.postgres)
                await self._run(work, addresses)
                await self._actors.rest()
                self._after_each(self.record)
        finally:
            await self._actors.end()

    async def _run(self, work: Work, addresses: Addresses) -> None:
        for name, why in work.left_out.items():
            if name in self._contestants:
                self.record.of(work.name, name).missing = why
        async with AsyncExitStack() as stack:
            crews = await self._crews(work, addresses, stack)
            for number in range(self._rounds or min(work.rounds, self._scale.rounds)):
                for crew in crews[:: -1 if number % 2 else 1]:
                    await self._measure(work, crew, number)

    async def _crews(self, work: Work, addresses: Addresses, stack: AsyncExitStack) -> list[Crew]:
        crews = []
        for name in work.contestants:
            if name not in self._contestants:
                continue
            if (why := missing(name, addresses)) is not None:
                self.record.of(work.name, name).missing = why
                continue
            crew = self._actors.crew(name, addresses, size=work.processes, capacity=CAPACITY)
            crews.append(await stack.enter_async_context(crew))
        return crews

    async def _measure(self, work: Work, crew: Crew, number: int) -> None:
        measured = self.record.of(work.name, crew.contestant)
        if measured.missing is not None:
            return
        limit_seconds = min(work.limit_seconds, self._scale.limit_seconds)
        try:
            async with asyncio.timeout(limit_seconds):
                figures = await work.measure(crew, self._scale)
        except TimeoutError:
            measured.missing = f"took more than {limit_seconds:g} s"
        except PartFailed as failure:
            measured.missing = _last_line(str(failure))
            if crew.contestant in WITH_OUR_SQL:
                self.failed.append(f"{work.name}, {crew.contestant}: {measured.missing}")
            self._say(str(failure))
        else:
            self._note(work, crew.contestant, figures)
        if measured.missing is not None:
            measured.values.clear()
            await self._actors.renew(crew.contestant)
        self._say(f"  round {number + 1} {ENTRIES[crew.contestant].title:24} {self._told(work, crew.contestant)}")

    def _note(self, work: Work, contestant: str, figures: Figures) -> None:
        measured = self.record.of(work.name, contestant)
        if figures.get("lost"):
            measured.missing = f"lost {figures['lost']:,.0f} messages"
            return
        if figures.get("twice"):
            measured.remark = "some messages came twice"
        for figure in work.figures:
            if figure in figures:
                measured.values.setdefault(figure, []).append(figures[figure])

    def _told(self, work: Work, contestant: str) -> str:
        measured = self.record.of(work.name, contestant)
        latest = [
            f"{work.figures[figure].title} {formatted(values[-1], work.figures[figure].unit)}"
            for figure, values in measured.values.items()
        ]
        return measured.missing or ", ".join(latest)

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._started:5.0f} s  {text}", file=sys.stderr, flush=True)


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:200] if text.strip() else "without a word"
