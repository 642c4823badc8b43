"""`pgchannels demo`: one chat in two server processes, FastAPI and Django, that share nothing but PostgreSQL."""

import argparse
import asyncio
import errno
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Final, NoReturn, Self

from pgchannels.database import migrations
from pgchannels.errors import PgChannelsError

_REQUIRED_MODULES: Final = ("fastapi", "uvicorn", "websockets", "django", "channels", "daphne")
_START_TIMEOUT_SECONDS: Final = 60
_ANSWER_TIMEOUT_SECONDS: Final = 5
_STOP_TIMEOUT_SECONDS: Final = 5
_LOOK_EVERY_SECONDS: Final = 0.2
_LOG_TAIL_LINES: Final = 25
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared, not bound
_SERVE: Final = "from pgchannels.cli.demo import serve_while_parent_lives; serve_while_parent_lives()"


class DemoFailed(PgChannelsError):
    """The demo cannot start, or one of its servers ended unexpectedly."""


def add_demo_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("demo", help="chat between a FastAPI and a Django process through PostgreSQL")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on, by default %(default)s")
    parser.add_argument(
        "--port", type=_port, default=8000, help="the port of FastAPI; Django gets the next one (default: %(default)s)"
    )
    parser.add_argument(
        "--url", help="postgresql://user:password@host/name; by default PGCHANNELS_URL, else a PostgreSQL of its own"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the two pages in the browser")
    parser.set_defaults(run=_run)


def serve_while_parent_lives() -> None:
    """Run the module of `sys.argv[1]` as `python -m` would, and end it when standard input does.

    Even a demo that was killed then leaves no server behind.
    """
    threading.Thread(target=_stop_with_parent, daemon=True, name="parent").start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _stop_with_parent() -> None:
    # Not sys.stdin.read(): a thread inside it would crash the interpreter's orderly shutdown.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_TIMEOUT_SECONDS)
    os._exit(1)


def _run(arguments: argparse.Namespace) -> int:
    _require_extras()
    for port in (arguments.port, arguments.port + 1):
        _require_free(arguments.host, port)
    with _stop_signals_interrupt(), suppress(KeyboardInterrupt), ExitStack() as resources:
        print("Starting …", flush=True)
        url = arguments.url or os.environ.get("PGCHANNELS_URL") or resources.enter_context(_own_database())
        asyncio.run(migrations.upgrade(url))
        servers = [resources.enter_context(server) for server in _servers(arguments.host, arguments.port, url)]
        _wait_until_ready(servers)
        _welcome(servers, open_browser=not arguments.no_browser)
        _watch(servers)
    print("Stopped.", flush=True)
    return 0


def _require_extras() -> None:
    if missing := [module for module in _REQUIRED_MODULES if find_spec(module) is None]:
        raise DemoFailed(f'the demo needs {", ".join(missing)}: pip install "pgchannels[demo]"')


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65534):
        raise argparse.ArgumentTypeError(f"{text} is no port from 1 to 65534; Django gets the one after it")
    return int(text)


def _require_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do: a port whose last connections are just closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise DemoFailed(
                f"port {port} of {host} is taken: choose another with --port; the demo needs it and the next one"
            ) from None
        raise DemoFailed(f"cannot listen on {host} port {port} ({error.strerror}): see --host and --port") from None


@contextmanager
def _stop_signals_interrupt() -> Iterator[None]:
    def interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    # Both: a shell starts background commands with SIGINT ignored.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _own_database() -> Iterator[str]:
    from pgchannels.embedded import EmbeddedServer

    with EmbeddedServer() as server:
        yield server.url()


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int

    @property
    def reachable_host(self) -> str:
        return _ANY_ADDRESS.get(self.host, self.host)

    def __str__(self) -> str:
        host = self.reachable_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


class _Server:
    """A server process, from `with` to its end; its output is kept to show why it ended."""

    def __init__(
        self, name: str, address: _Address, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self.address = address
        self._command = command
        self._folder = folder
        self._environment = environment

    def __enter__(self) -> Self:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 -- this interpreter, arguments of our own
            [sys.executable, "-c", _SERVE, *self._command],
            cwd=self._folder,
            env=os.environ | self._environment,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C: the demo ends it, in its own time
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_TIMEOUT_SECONDS)
        finally:
            self._process.kill()
            self._process.communicate(timeout=_STOP_TIMEOUT_SECONDS)
            self._log.close()

    def require_running(self) -> None:
        if (status := self._process.poll()) is not None:
            raise DemoFailed(f"{self.name} ended by itself with status {status}; it wrote:\n{self._log_tail()}")

    def answers(self) -> bool:
        connection = HTTPConnection(self.address.reachable_host, self.address.port, timeout=_ANSWER_TIMEOUT_SECONDS)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        return False

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:]) or "    nothing"


def _servers(host: str, port: int, url: str) -> list[_Server]:
    examples = _examples_folder()
    # The user's shell may set variables for other projects (WEB_CONCURRENCY, DJANGO_SETTINGS_MODULE): override them.
    uvicorn = ["uvicorn", "main:app", f"--host={host}", f"--port={port}", "--log-level=warning", "--workers=1"]
    daphne = ["daphne", "chat.asgi:application", f"--bind={host}", f"--port={port + 1}", "--verbosity=0"]
    return [
        _Server(
            "FastAPI",
            _Address(host, port),
            uvicorn,
            folder=examples / "fastapi_chat",
            environment={"PGCHANNELS_URL": url, "CHAT_OTHER_PORT": str(port + 1)},
        ),
        _Server(
            "Django",
            _Address(host, port + 1),
            daphne,
            folder=examples / "django_chat",
            environment={
                "PGCHANNELS_URL": url,
                "CHAT_OTHER_PORT": str(port),
                "DJANGO_SETTINGS_MODULE": "chat.settings",
            },
        ),
    ]


def _examples_folder() -> Path:
    package = Path(__file__).parents[1]
    in_wheel = package / "_examples"
    return in_wheel if in_wheel.is_dir() else package.parent / "examples"


def _wait_until_ready(servers: Sequence[_Server]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    for server in servers:
        while not server.answers():
            server.require_running()
            if time.monotonic() > deadline:
                raise DemoFailed(f"{server.name} did not answer at {server.address} in {_START_TIMEOUT_SECONDS} s")
            time.sleep(_LOOK_EVERY_SECONDS)


def _welcome(servers: Sequence[_Server], *, open_browser: bool) -> None:
    print("\nTwo processes that share nothing but the database:\n")
    for server in servers:
        print(f"    {server.name:<8} {server.address}")
    print("\nOpen both and write in either. Ctrl-C stops everything.", flush=True)
    if open_browser:
        for server in servers:
            webbrowser.open(str(server.address))


def _watch(servers: Sequence[_Server]) -> NoReturn:
    while True:
        for server in servers:
            server.require_running()
        time.sleep(_LOOK_EVERY_SECONDS)
