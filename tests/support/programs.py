"""Programs under test: started in a session of their own, read line by line, and gone at the end of the block."""

import os
import queue
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LIMIT_SECONDS = 60
POLL_SECONDS = 0.02
EXAMPLES = Path(__file__).parents[2] / "examples"
_BESIDE_PYTHON = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


class Program:
    """A running program; every wait for it has a limit."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="reader")
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, containing: str) -> str:
        """The next line with this text."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while (line := self._lines.get(timeout=max(0, deadline - time.monotonic()))) is not None:
            if containing in line:
                return line
        raise AssertionError(f"the program ended without {containing!r}; it wrote:\n{self.text()}")

    def end(self) -> int:
        """Its status once it has ended, and everything that it wrote is in `output`."""
        status = self.process.wait(LIMIT_SECONDS)
        self._reader.join(LIMIT_SECONDS)
        return status

    def text(self) -> str:
        return "".join(self.output)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)


@contextmanager
def running(command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> Iterator[Program]:
    """The program, with standard error among its output; killed at the end with all that it started."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": _BESIDE_PYTHON, "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        program = Program(process)
        try:
            yield program
        finally:
            for pid in (process.pid, *descendants_of(process.pid)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            program.end()


def commands_of(example: str) -> list[list[str]]:
    """The commands of the README, in order; what the tests stand for themselves is left out."""
    readme = (EXAMPLES / example / "README.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) for line in block.splitlines()]
    return [shlex.split(line) for line in lines if not line.startswith(("pip install ", "export PGCHANNELS_URL="))]


def with_port(command: Sequence[str], port: int) -> list[str]:
    """The command with another port than the README's, which may be taken."""
    index = list(command).index("--port") + 1
    return [*command[:index], str(port), *command[index + 1 :]]


def run(command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> str:
    """What the program writes until it ends well."""
    with running(command, folder=folder, environment=environment) as program:
        assert program.end() == 0, program.text()
    return program.text()


@contextmanager
def chat(example: str, database_url: str, port: int) -> Iterator[Program]:
    """A chat as its README starts it, on another port and an empty database, once it serves its page."""
    environment = {"PGCHANNELS_URL": database_url}
    *preparations, serve = commands_of(example)
    for command in preparations:
        run(command, folder=EXAMPLES / example, environment=environment)
    with running(with_port(serve, port), folder=EXAMPLES / example, environment=environment) as program:
        eventually(lambda: answers(port) or program.process.poll() is not None)
        assert program.process.poll() is None, program.text()
        yield program


def eventually(condition: Callable[[], object]) -> None:
    """Return once the condition holds; fail when it does not within the limit."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come true within {LIMIT_SECONDS} s"
        time.sleep(POLL_SECONDS)


def first(find: Callable[[], Iterable[T]]) -> T:
    """The first of what is found, as soon as there is any."""
    found: list[T] = []

    def finds() -> bool:
        found.extend(find())
        return bool(found)

    eventually(finds)
    return found[0]


def answers(port: int, path: str = "/") -> bool:
    """Whether a page is served at the port."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)) as connection:
        with suppress(OSError, HTTPException):
            connection.request("GET", path)
            return connection.getresponse().status == 200
        return False


def is_free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
        return False


def free_port() -> int:
    """A port that is free, like the one after it."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 65535 and is_free(port + 1):
            return port


def descendants_of(pid: int) -> list[int]:
    """The processes that the process started, those that they started, and so on."""
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in _words(path)]
    return [*children, *(grandchild for child in children for grandchild in descendants_of(child))]


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    return ") Z " not in (status := " ".join(_words(Path(f"/proc/{pid}/stat")))) and bool(status)


def _words(path: Path) -> list[str]:
    with suppress(FileNotFoundError, ProcessLookupError):
        return path.read_text().split()
    return []
