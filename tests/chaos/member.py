"""One process of a run, as whoever runs it sees it."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from tests.chaos.journal import Record, read_journal
from tests.chaos.ledger import Account, Ending
from tests.chaos.process import Part
from tests.chaos.worker import RECEIVERS

_ROOT: Final = Path(__file__).parents[2]
_EXIT_SECONDS: Final = 25  # longer than a layer may take to close
# Things that Python says of its own accord: failed tasks, forgotten ones, what was not closed.
_SIGNS_OF_TROUBLE: Final = ("Traceback", "never retrieved", "never awaited", "was destroyed", "Exception ignored")
# asyncpg leaves a future behind when a connection is given up that was just made.
_CANCELLED_CONNECT: Final = re.compile(
    r"^Future exception was never retrieved\n.*\n(Traceback .*\n)?( .*\n)*.*unexpected connection_lost\(\) call$",
    re.MULTILINE,
)
_STATUSES: Final = {
    Ending.FINISHED: {0},
    Ending.TERMINATED: {0, -signal.SIGTERM},  # the signal itself may end it as long as it has not begun
    Ending.KILLED: {-signal.SIGKILL},
}


class Role(StrEnum):
    """What a process does; the name of its module."""

    PUBLISHER = "publisher"
    TRANSACTOR = "transactor"
    SUBSCRIBER = "subscriber"
    WORKER = "worker"
    CLAIMER = "claimer"
    CONSUMER = "consumer"


@dataclass(slots=True)
class Member:
    """One process, from its start to its end."""

    role: Role
    part: Part
    process: asyncio.subprocess.Process
    errors: Path
    ending: Ending = Ending.FINISHED
    channels: list[str] = field(default_factory=list)
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    is_at_rest: asyncio.Event = field(default_factory=asyncio.Event)
    has_caught_up: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def start(cls, role: Role, part: Part, directory: Path) -> Self:
        """Start a process; it reports when it is ready."""
        errors = directory / f"{part.name}.errors"
        with errors.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-W", "error", "-m", f"tests.chaos.{role}", part.to_json()],
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=file,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
        return cls(role, part, process, errors)

    @property
    def is_running(self) -> bool:
        return self.process.returncode is None

    async def listen(self, *, on_ready: Callable[[], None]) -> None:
        """Take its reports until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            match json.loads(line):
                case ["ready", str(channels)]:
                    self.channels = channels.split()
                    self.is_ready.set()
                    on_ready()
                case ["at rest", _]:
                    self.is_at_rest.set()
                case ["caught up", _]:
                    self.has_caught_up.set()

    async def reached(self, moment: asyncio.Event) -> None:
        """Return when the process has come to this moment, or has ended."""
        waits = [asyncio.create_task(wait) for wait in (moment.wait(), self.process.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def order(self, channels: list[str]) -> None:
        """Tell it to which channels it may send, and, if it is a consumer, which it may add; without any it rests."""
        if self.is_running and self.process.stdin is not None:
            self.process.stdin.write(json.dumps(channels).encode() + b"\n")

    def finish(self) -> None:
        """Tell it to finish."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    async def end(self, ending: Ending) -> None:
        """End it by a signal; one that does not go in time is killed, and that is trouble."""
        self.ending = ending
        self.signal(signal.SIGKILL if ending is Ending.KILLED else signal.SIGTERM)
        await self.wait()

    async def wait(self) -> None:
        """Wait for its end, and bring that about if it takes too long."""
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.is_running:
            self.process.send_signal(number)

    def records(self) -> list[Record]:
        """What it wrote down so far."""
        journal = Path(self.part.journal)
        return read_journal(journal) if journal.exists() else []

    def account(self) -> Account:
        """What there is to balance of it."""
        has_failed = self.ending is Ending.FINISHED and self.process.returncode != 0
        ending = Ending.TERMINATED if has_failed else self.ending
        return Account(self.part.name, self.records(), ending, RECEIVERS if self.role is Role.WORKER else 0)

    def troubles(self) -> list[str]:
        """What went wrong with it, apart from its messages."""
        lines = _CANCELLED_CONNECT.sub("", self.errors.read_text(errors="replace")).splitlines()
        troubles = [line for line in lines if any(sign in line for sign in _SIGNS_OF_TROUBLE)]
        if self.process.returncode not in _STATUSES[self.ending]:
            troubles += [f"{self.ending} with status {self.process.returncode}", *lines[-1:]]
        return [f"{self.part.name}: {trouble}" for trouble in troubles]
