"""Servers under load that are told to end."""

import asyncio
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.connections import has_connections
from tests.support.programs import EXAMPLES, LIMIT_SECONDS, Program, eventually, free_port, is_free, running
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
PYTHON = [sys.executable, "-X", "dev", "-W", "error"]
SOCKETS = 8
CHAT = "ws/lobby?name=Ada"

UVICORN = [*PYTHON, "-m", "uvicorn", "--log-level", "warning"]
DAPHNE = [*PYTHON, "-m", "daphne", "-v", "0"]
# uvicorn lets the signal end it once it has shut down; Twisted takes it for the end of its reactor.
SERVERS = {
    "fastapi": ([*UVICORN, "tests.lifecycle.serving:app"], ROOT, "ws/room", -signal.SIGTERM),
    "fastapi on asyncio": (
        [*UVICORN, "--loop", "asyncio", "tests.lifecycle.serving:app"],
        ROOT,
        "ws/room",
        -signal.SIGTERM,
    ),
    "django on uvicorn": ([*UVICORN, "chat.asgi:application"], EXAMPLES / "django_chat", CHAT, -signal.SIGTERM),
    "django on daphne": ([*DAPHNE, "chat.asgi:application"], EXAMPLES / "django_chat", CHAT, 0),
}


@pytest.mark.parametrize(("command", "folder", "path", "status"), SERVERS.values(), ids=SERVERS)
async def test_server_under_load_ends_without_a_word(
    database_url: str,
    connection: "asyncpg.Connection[asyncpg.Record]",
    command: Sequence[str],
    folder: Path,
    path: str,
    status: int,
) -> None:
    port = free_port()
    environment = {"PGCHANNELS_URL": database_url}
    with running([*command, "--port", str(port)], folder=folder, environment=environment) as program:
        await asyncio.to_thread(terminate_under_load, program, f"ws://127.0.0.1:{port}/{path}", port)
    assert program.process.returncode == status or is_fault_of_python(program), program.text()
    assert not complaints(program.text()), program.text()
    await until(lambda: has_connections(connection, 0))
    if "tests.lifecycle.serving:app" in command:
        assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 0


def terminate_under_load(program: Program, url: str, port: int) -> None:
    """Let all sockets talk and listen, and end the server while they do."""
    eventually(lambda: not is_free(port) or program.process.poll() is not None)
    busy = threading.Barrier(SOCKETS + 1)
    threads = [threading.Thread(target=talk, args=(url, busy), daemon=True) for _ in range(SOCKETS)]
    for thread in threads:
        thread.start()
    busy.wait(LIMIT_SECONDS)
    program.process.send_signal(signal.SIGTERM)
    program.end()
    for thread in threads:
        thread.join(LIMIT_SECONDS)


def talk(url: str, busy: threading.Barrier) -> None:
    """Say something for everything that is heard, until the server ends."""
    with ExitStack() as stack:
        socket = stack.enter_context(connect(url, open_timeout=LIMIT_SECONDS, close_timeout=1, max_queue=None))
        for _ in range(20):
            exchange(socket)
        busy.wait(LIMIT_SECONDS)
        try:
            while True:
                exchange(socket)
        except ConnectionClosed:
            pass


def exchange(socket: ClientConnection) -> None:
    socket.send('{"text": "hello"}')
    socket.recv(timeout=LIMIT_SECONDS)


def is_fault_of_python(program: Program) -> bool:
    """Whether Python before 3.11.8 has crashed as it collected a waiting task that the server had left (gh-113566).

    The server left it, in `Queue.get`, when it was told to end: it says nothing of a task of ours.
    """
    crash = ("Fatal Python error: Segmentation fault", "Garbage-collecting", "asyncio/queues.py")
    told = all(words in program.text() for words in crash)
    return sys.version_info < (3, 11, 8) and program.process.returncode == -signal.SIGSEGV and told


def complaints(text: str) -> list[str]:
    """What a server wrote of warnings and errors; how long a callback takes on a busy machine is nobody's fault."""
    telling = ("Traceback", "Warning", "destroyed", "never retrieved", "never awaited", "pgchannels")
    return [
        line for line in text.splitlines() if not line.startswith("Executing <") and any(t in line for t in telling)
    ]
