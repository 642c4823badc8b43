"""What the tests see of processes: which are alive, what a server has on the machine, and parents to be killed."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import parse_qs, urlsplit

import psycopg

LIMIT_SECONDS = 30.0

START = """
import json, os, signal, sys
from pgchannels.embedded import EmbeddedServer
server = EmbeddedServer()
server.start()

def tell(**more):
    print(json.dumps({"url": server.url(), "pids": [server.pid, server.supervisor_pid]} | more), flush=True)
"""


def eventually(condition: Callable[[], object]) -> None:
    """Return once the condition holds; fail when it does not within the limit."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come true within {LIMIT_SECONDS} s"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; one that only waits to be reaped does not."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return not _is_zombie(pid)
    return False


def _is_zombie(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return re.search(r"\) Z ", Path(f"/proc/{pid}/stat").read_text()) is not None
    return sys.platform == "linux"


def rows(url: str, statement: LiteralString) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@dataclass(frozen=True, slots=True)
class Traces:
    """What a running server has on the machine."""

    directory: Path
    pids: tuple[int, ...]

    @classmethod
    def of(cls, url: str, *pids: int) -> "Traces":
        """Return those of a running server, its background processes included."""
        (directory,) = parse_qs(urlsplit(url).query)["host"]
        background = [pid for (pid,) in rows(url, "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")]
        assert len(background) >= 4
        return cls(Path(directory), (*pids, *background))

    def alive(self) -> list[int]:
        return [pid for pid in self.pids if is_alive(pid)]

    def are_gone(self) -> bool:
        return not self.alive() and not self.directory.exists()


class Parent:
    """A process that starts a server and tells what it started, one JSON object per line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], LIMIT_SECONDS)
        assert readable, f"no line within {LIMIT_SECONDS} s"
        return self.process.stdout.readline()

    def told(self) -> dict[str, Any]:
        told = json.loads(self.line())
        assert isinstance(told, dict)
        return told

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_SECONDS)


@contextmanager
def python(
    *arguments: str,
    interpreter: str = sys.executable,
    account: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Parent]:
    """Run Python in a session of its own, and kill it at the end of the block."""
    process = subprocess.Popen(
        [interpreter, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment,
        user=account,
        extra_groups=None if account is None else [],
        start_new_session=True,
    )
    with process:
        try:
            yield Parent(process)
        finally:
            process.kill()
