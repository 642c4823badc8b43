"""Members of both versions, and what all of them have sent and received together."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self, TypeVar

from pgchannels import MessageLayer
from tests.rolling.member import JOBS
from tests.rolling.old_version import ROOT, environment
from tests.support.waiting import within

PROGRAM: Final = Path(__file__).parent / "member.py"

T = TypeVar("T")


@dataclass(slots=True)
class Member:
    """A process that sends and receives."""

    name: str
    process: asyncio.subprocess.Process
    sent: dict[str, int] = field(default_factory=dict)
    received: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    joined: int = 0  # how many times members had joined or left by then
    left: int = 0

    async def read(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line = await within(self.process.stdout.readline())
        assert line, f"{self.name} has ended"
        return line.decode().strip()

    def tell(self, line: str) -> None:
        """Tell it what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def stop(self) -> None:
        """Let it send no more."""
        self.tell("stop")
        self.sent = json.loads(await self.read())

    async def finish(self, totals: dict[str, dict[str, int]]) -> None:
        """Let it receive the rest, and end."""
        self.tell(json.dumps(totals))
        result = json.loads(await self.read())
        assert result["gaps"] == []
        self.received = {way: [(name, number) for name, number in pairs] for way, pairs in result["received"].items()}
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await within(self.process.wait()) == 0


class Crew:
    """Starts members, and ends them at the latest with its block."""

    def __init__(self, url: str, old: Path) -> None:
        self._url = url
        self._packages = {"old": old, "new": ROOT}
        self._stack = AsyncExitStack()
        self.members: list[Member] = []
        self._changes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def add(self, *names: str) -> list[Member]:
        """Start members, whose names begin with their version, and wait until they receive."""
        self._changes += 1
        members = [await self._start(name) for name in names]
        await both(member.read() for member in members)
        self.members += members
        return members

    async def _start(self, name: str) -> Member:
        package = self._packages[name.partition("-")[0]]
        command = (sys.executable, "-W", "error", str(PROGRAM), self._url, name)
        process = await self._stack.enter_async_context(running(command, package))
        return Member(name, process, joined=self._changes)

    async def finish(self, leaving: Iterable[Member]) -> None:
        """Let members stop, and end when they have received all that has been sent by those that stopped."""
        members = list(leaving)
        await both(member.stop() for member in members)
        totals = {member.name: member.sent for member in members}
        self._changes += 1
        for member in members:
            member.left = self._changes
        await both(member.finish(totals) for member in members)

    async def verify(self) -> None:
        """Every message has come once and in order to each member that was there; none of the queue is missing."""
        for member in self.members:
            for way in ("topic", "group"):
                self._require_in_order(member, way)
            versions = {sender.partition("-")[0] for sender, _ in member.received["queue"]}
            assert versions == {"old", "new"}, f"{member.name} has no jobs of both versions"
        sent = Counter((member.name, number) for member in self.members for number in range(member.sent["queue"]))
        received = Counter(pair for member in self.members for pair in member.received["queue"])
        received.update(await self._left())
        assert received == sent

    def _require_in_order(self, member: Member, way: str) -> None:
        for sender in self.members:
            numbers = [number for name, number in member.received[way] if name == sender.name]
            was_there = member is sender or member.joined < sender.joined
            first = 0 if was_there or not numbers else numbers[0]
            end = sender.sent[way] if member.left >= sender.left else first + len(numbers)
            assert numbers == list(range(first, end)), f"{member.name}, {way} of {sender.name}"

    async def _left(self) -> list[tuple[str, int]]:
        async with MessageLayer(self._url) as layer:
            await layer.send(JOBS, None)
            left = []
            while (pair := await within(layer.receive(JOBS))) is not None:
                left.append((pair[0], pair[1]))
        return left


async def both(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Await calls together."""
    return list(await asyncio.gather(*calls))


async def upgrade(url: str, package: Path, *options: str) -> None:
    """Run `pgchannels upgrade` of a version."""
    command = (sys.executable, "-m", "pgchannels", "upgrade", "--url", url, *options)
    async with running(command, package) as process:
        assert await within(process.wait()) == 0


@asynccontextmanager
async def running(command: tuple[str, ...], package: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that imports pgchannels from a folder, ended at the latest with the block."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=package,
        env=environment(package),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
