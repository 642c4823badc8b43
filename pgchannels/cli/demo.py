"""`pgchannels demo`: one chat in two server processes, FastAPI and Django, that share nothing but PostgreSQL."""

import argparse
import asyncio
import errno
import signal
import socket
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from pgchannels.cli.demo_orders import changing_command, create_orders
from pgchannels.cli.demo_servers import Address, DemoFailed, Server
from pgchannels.cli.target import given_url
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer

_REQUIRED_MODULES: Final = ("fastapi", "uvicorn", "websockets", "django", "channels", "daphne")
_START_TIMEOUT_SECONDS: Final = 60
_LOOK_EVERY_SECONDS: Final = 0.2


def add_demo_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo", help="chat, and a live table, in a FastAPI and a Django process on one PostgreSQL"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on, by default %(default)s")
    parser.add_argument(
        "--port", type=_port, default=8000, help="the port of FastAPI; Django gets the next one (default: %(default)s)"
    )
    parser.add_argument(
        "--url", help="postgresql://user:password@host/name; by default PGCHANNELS_URL, else a PostgreSQL of its own"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the two pages in the browser")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    _require_extras()
    for port in (arguments.port, arguments.port + 1):
        _require_free(arguments.host, port)
    with _stop_signals_interrupt(), suppress(KeyboardInterrupt), ExitStack() as resources:
        print("Starting …", flush=True)
        database = _database(given_url(arguments), resources)
        servers = [resources.enter_context(server) for server in _servers(arguments.host, arguments.port, database)]
        _wait_until_ready(servers)
        _welcome(servers, database)
        if not arguments.no_browser:
            _open_browser(servers)
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


@dataclass(frozen=True, slots=True)
class _Database:
    """Where both servers connect to; one of the demo's own has a table, and a command for a shell that changes it."""

    url: str
    changing_command: str | None = None


def _database(url: str | None, resources: ExitStack) -> _Database:
    if url:
        asyncio.run(migrations.upgrade(url))
        return _Database(url)
    server = resources.enter_context(EmbeddedServer())
    asyncio.run(migrations.upgrade(server.url()))
    create_orders(server.url())
    return _Database(server.url(), changing_command(server))


def _servers(host: str, port: int, database: _Database) -> list[Server]:
    examples = _examples_folder()
    environment = {"PGCHANNELS_URL": database.url, "CHAT_ORDERS": "1" if database.changing_command else ""}
    # The user's shell may set variables for other projects (WEB_CONCURRENCY, DJANGO_SETTINGS_MODULE): override them.
    uvicorn = ["uvicorn", "main:app", f"--host={host}", f"--port={port}", "--log-level=warning", "--workers=1"]
    daphne = ["daphne", "chat.asgi:application", f"--bind={host}", f"--port={port + 1}", "--verbosity=0"]
    return [
        Server(
            "FastAPI",
            Address(host, port),
            uvicorn,
            folder=examples / "fastapi_chat",
            environment=environment | {"CHAT_OTHER_PORT": str(port + 1)},
        ),
        Server(
            "Django",
            Address(host, port + 1),
            daphne,
            folder=examples / "django_chat",
            environment=environment | {"CHAT_OTHER_PORT": str(port), "DJANGO_SETTINGS_MODULE": "chat.settings"},
        ),
    ]


def _examples_folder() -> Path:
    package = Path(__file__).parents[1]
    in_wheel = package / "_examples"
    return in_wheel if in_wheel.is_dir() else package.parent / "examples"


def _wait_until_ready(servers: Sequence[Server]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    for server in servers:
        while not server.answers():
            server.require_running()
            if time.monotonic() > deadline:
                raise DemoFailed(f"{server.name} did not answer at {server.address} in {_START_TIMEOUT_SECONDS} s")
            time.sleep(_LOOK_EVERY_SECONDS)


def _welcome(servers: Sequence[Server], database: _Database) -> None:
    print("\nTwo processes that share nothing but the database:\n")
    for server in servers:
        print(f"    {server.name:<8} {server.address}")
    print("\nOpen both and write in either.")
    if database.changing_command:
        print(f"Change a row by SQL in another terminal, and both pages show it:\n\n    {database.changing_command}\n")
    print("Ctrl-C stops everything.", flush=True)


def _open_browser(servers: Sequence[Server]) -> None:
    for server in servers:
        webbrowser.open(str(server.address))


def _watch(servers: Sequence[Server]) -> NoReturn:
    while True:
        for server in servers:
            server.require_running()
        time.sleep(_LOOK_EVERY_SECONDS)
