"""The embedded server as its users see it, and their end of the channel to its supervisor."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

from pgchannels.embedded.binaries import find_binaries
from pgchannels.embedded.errors import ServerNotStarted, ServerStartFailed

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    # Files in the data directory are removed with it; POSIX segments of a killed server would stay in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
}
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
STOP_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
REPLY_LIMIT_SECONDS = 150.0  # longer than the sum of the supervisor's own limits
EXIT_LIMIT_SECONDS = 60.0


class EmbeddedServer:
    """A private PostgreSQL, on a unix socket in a private directory.

    Server and directory disappear with `stop`, with the end of the `with` block, or with the process that started them,
    even by SIGKILL. Calls block; only one thread at a time may make them.

    :param durable: write every commit to disk before confirming it; without it, `kill` may lose the last ones.
    :param settings: server settings by name, over the defaults; port and socket directory cannot be chosen.
    """

    port = 5432

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self._settings = SETTINGS | ({} if durable else NOT_DURABLE) | dict(settings or {}) | {"port": str(self.port)}
        self._supervisor: _Supervisor | None = None
        self._state: _State | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return once the server takes connections: after `kill` with its recovered data, else empty.

        :raises PostgresNotFound: before anything is created.
        :raises ServerStartFailed: with the tail of the log; a first start then leaves nothing behind.
        """
        if self._supervisor is not None:
            self._ask("start")
            return
        binaries = find_binaries()
        self._supervisor = _Supervisor()
        try:
            self._ask("prepare", binaries=str(binaries), settings=self._settings)
            self._ask("start")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server at once and remove its directory; do nothing if it is not started."""
        supervisor, self._supervisor = self._supervisor, None
        state, self._state = self._state, None
        if supervisor is not None:
            supervisor.close()
        if state is not None and state.directory.exists():
            _remove_after_lost_supervisor(state)

    def kill(self) -> None:
        """Crash the server: SIGKILL to it, then to its backends; returns when all are gone. `start` recovers."""
        self._ask("stop", signal=signal.SIGKILL)

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start with the same data and URL: `fast` ends sessions cleanly, `immediate` replays the WAL."""
        self._ask("stop", signal=STOP_SIGNALS[mode])
        self._ask("start")

    def url(self, database: str = "postgres") -> str:
        """Return a URL for libpq, psycopg and asyncpg; its user is the superuser `postgres`, without a password."""
        socket_directory = quote(str(self.socket_directory))
        return f"postgresql://postgres@/{quote(database, safe='')}?host={socket_directory}&port={self.port}"

    @property
    def socket_directory(self) -> Path:
        return self._started.directory

    @property
    def data_directory(self) -> Path:
        return self._started.data_directory

    @property
    def binaries(self) -> Path:
        """Where the programs run from: those found, or a copy that the server's account can reach."""
        return self._started.binaries

    @property
    def pid(self) -> int:
        """The postmaster's process id; after `kill`, that of the last one."""
        return self._started.pid

    @property
    def supervisor_pid(self) -> int:
        return self._started.supervisor_pid

    @property
    def _started(self) -> "_State":
        if self._state is None:
            raise ServerNotStarted("The embedded server is not started: call start(), or use it in a with block.")
        return self._state

    def _ask(self, action: str, **details: object) -> None:
        if self._supervisor is None:
            raise ServerNotStarted(f"The embedded server cannot {action}, it is not started: call start() first.")
        self._state = self._supervisor.ask({"action": action, **details})


@dataclass(frozen=True, slots=True)
class _State:
    directory: Path
    binaries: Path
    pid: int
    supervisor_pid: int

    @property
    def data_directory(self) -> Path:
        return self.directory / "data"


class _Supervisor:
    """The parent's end: one request, one reply; closing it ends the server and removes the directory."""

    def __init__(self) -> None:
        # A socket, not a pipe: its shutdown reaches the supervisor even while a forked child holds a copy.
        self._channel, theirs = socket.socketpair()
        script = Path(__file__).with_name("supervisor.py")
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 -- this interpreter, this package's file
                [sys.executable, "-IS", script, str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
        self._channel.settimeout(REPLY_LIMIT_SECONDS)
        self._replies = self._channel.makefile("r")

    def ask(self, request: Mapping[str, object]) -> _State:
        reply = json.loads(self._exchange(json.dumps(request)))
        if reply["error"] is not None:
            raise ServerStartFailed(reply["error"])
        return _State(Path(reply["directory"]), Path(reply["binaries"]), reply["pid"], self._process.pid)

    def _exchange(self, request: str) -> str:
        with suppress(OSError):
            self._channel.sendall(f"{request}\n".encode())
            if reply := self._replies.readline():
                return reply
        raise ServerNotStarted(
            f"The supervisor of the embedded server (pid {self._process.pid}) has ended or gives no answer: "
            "call stop(), which removes what is left, then start()."
        )

    def close(self) -> None:
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(EXIT_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(EXIT_LIMIT_SECONDS)
        self._replies.close()
        self._channel.close()


def _remove_after_lost_supervisor(state: _State) -> None:
    lock_file = state.data_directory / "postmaster.pid"
    deadline = time.monotonic() + EXIT_LIMIT_SECONDS
    with suppress(ProcessLookupError):
        while lock_file.exists() and time.monotonic() < deadline:
            os.kill(state.pid, signal.SIGQUIT)
            time.sleep(0.01)
    shutil.rmtree(state.directory)
