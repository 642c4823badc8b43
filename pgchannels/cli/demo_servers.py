"""Server processes of `pgchannels demo`: they end with it, however it ends."""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from pgchannels.errors import PgChannelsError

_ANSWER_TIMEOUT_SECONDS: Final = 5
_STOP_TIMEOUT_SECONDS: Final = 5
_LOG_TAIL_LINES: Final = 25
_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- compared, not bound
_SERVE: Final = "from pgchannels.cli.demo_servers import serve_while_parent_lives; serve_while_parent_lives()"


class DemoFailed(PgChannelsError):
    """The demo cannot start, or one of its servers ended unexpectedly."""


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


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def reachable_host(self) -> str:
        """Where a browser on this machine finds it."""
        return _ANY_ADDRESS.get(self.host, self.host)

    def __str__(self) -> str:
        host = self.reachable_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


class Server:
    """A server process, from `with` to its end; its output is kept to show why it ended."""

    def __init__(
        self, name: str, address: Address, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]
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
        """Raise with the end of what it wrote, if it has ended.

        :raises DemoFailed: with its status.
        """
        if (status := self._process.poll()) is not None:
            raise DemoFailed(f"{self.name} ended by itself with status {status}; it wrote:\n{self._log_tail()}")

    def answers(self) -> bool:
        """Whether it serves its page."""
        connection = HTTPConnection(self.address.reachable_host, self.address.port, timeout=_ANSWER_TIMEOUT_SECONDS)
        with closing(connection), suppress(OSError, HTTPException):
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        return False

    def _log_tail(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_LOG_TAIL_LINES:]) or "    nothing"
