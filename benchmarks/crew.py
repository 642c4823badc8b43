"""The processes in which one contestant plays a work."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.contestants import ENTRIES, Addresses
from benchmarks.databases import create_database, fresh_database

_ROOT: Final = Path(__file__).parents[1]
_LONGEST_REPLY: Final = 2**26
_ENOUGH: Final = 2

Figures = dict[str, Any]


class PartFailed(Exception):
    """A contestant could not play its part; the text says why."""


class Actor:
    """One process of `benchmarks.actor`."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors

    async def begin(self, request: dict[str, Any]) -> None:
        """Ask for a part."""
        await self._tell(request)

    async def ready(self) -> None:
        """Wait until the part is ready."""
        await self._answer("ready")

    async def go(self) -> None:
        """Let a part that is ready begin."""
        await self._tell({})

    async def figures(self) -> Figures:
        """Wait for the end of the part; returns what it measured."""
        return await self._answer("figures")

    async def end(self) -> None:
        """End the process and the part that it plays."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        self._errors.close()

    async def _tell(self, told: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(told)}\n".encode())
        await self._process.stdin.drain()

    async def _answer(self, expected: str) -> Figures:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise PartFailed(f"the process has ended: {self._last_errors()}")
        answer: dict[str, Figures] = json.loads(line)
        if expected not in answer:
            raise PartFailed(str(answer.get("failed", answer)))
        return answer[expected]

    def _last_errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]


class Crew:
    """A contestant, its processes, and a database of its own; one after the other, works ask it for parts."""

    def __init__(self, contestant: str, addresses: Addresses, actors: list[Actor], *, capacity: int) -> None:
        self.contestant = contestant
        self.addresses = addresses
        self._actors = actors
        self._capacity = capacity

    async def play(self, part: str, **arguments: Any) -> Figures:
        """Play a part that needs nobody else, in the first process."""
        actor = self._actors[0]
        await actor.begin(self._request(part, arguments))
        return await actor.figures()

    async def play_together(self, *parts: tuple[str, dict[str, Any]]) -> list[Figures]:
        """Play parts in as many processes; they begin together, when all are ready."""
        actors = self._actors[: len(parts)]
        for actor, (part, arguments) in zip(actors, parts, strict=True):
            await actor.begin(self._request(part, arguments))
        await asyncio.gather(*[actor.ready() for actor in actors])
        for actor in actors:
            await actor.go()
        return await asyncio.gather(*[actor.figures() for actor in actors])

    @asynccontextmanager
    async def holding(self, part: str, **arguments: Any) -> AsyncIterator[None]:
        """Play a part in the second process that lasts as long as the block."""
        actor = self._actors[1]
        await actor.begin(self._request(part, arguments))
        await actor.ready()
        yield
        await actor.go()
        await actor.figures()

    def _request(self, part: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {
            "part": f"benchmarks.works.{part}",
            "contestant": self.contestant,
            "addresses": asdict(self.addresses),
            "capacity": self._capacity,
            "arguments": arguments,
        }


class Actors:
    """The processes of a run: started when a crew needs them, kept for the next work.

    :param share_databases: keep the database of a contestant, too: for those who only want to see that all works.
    """

    def __init__(self, *, share_databases: bool) -> None:
        self._idle: dict[str, list[Actor]] = {}
        self._databases: dict[str, Addresses] = {}
        self._share_databases = share_databases

    @asynccontextmanager
    async def crew(self, contestant: str, addresses: Addresses, *, size: int, capacity: int) -> AsyncIterator[Crew]:
        """A contestant with so many processes and a database of its own."""
        idle = self._idle.setdefault(contestant, [])
        idle += await asyncio.gather(*[_start(contestant) for _ in range(size - len(idle))])
        if ENTRIES[contestant].server != "postgres":
            yield Crew(contestant, addresses, idle, capacity=capacity)
            return
        if self._share_databases:
            if contestant not in self._databases:
                self._databases[contestant] = await create_database(addresses)
            yield Crew(contestant, self._databases[contestant], idle, capacity=capacity)
            return
        async with fresh_database(addresses) as own:
            yield Crew(contestant, own, idle, capacity=capacity)

    async def rest(self) -> None:
        """End those that most works do not need."""
        for idle in self._idle.values():
            while len(idle) > _ENOUGH:
                await idle.pop().end()

    async def renew(self, contestant: str) -> None:
        """End all processes of a contestant, whatever they do."""
        for actor in self._idle.pop(contestant, []):
            await actor.end()

    async def end(self) -> None:
        """End all."""
        for contestant in list(self._idle):
            await self.renew(contestant)


async def _start(contestant: str) -> Actor:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `Actor.end`
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.actor",
        contestant,
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        limit=_LONGEST_REPLY,
    )
    actor = Actor(process, errors)
    await actor.ready()  # while others start, nothing is measured
    return actor
