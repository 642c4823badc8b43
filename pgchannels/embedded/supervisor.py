"""The process between an embedded server and its parent: ends the server and removes its directory with the parent.

This script uses only the standard library. Requests and replies are lines of JSON on the socket at file descriptor 0.
On Linux the server also dies with this process, and the backends of a killed server become this process's children.
"""

import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ACCOUNTS = ("postgres", "nobody")
START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 20.0
PARENT_CHECK_SECONDS = 0.2
LONGEST_BASE = 103 - len("/pgchannels-12345678/.s.PGSQL.5432")  # a socket's path has at most 103 bytes on macOS
LOG_TAIL_LINES = 20
CLUSTER_OPTIONS = ("--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")
# Without a locale PostgreSQL refuses to start on macOS; without a zone initdb searches for the system's.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
IPC_RMID = 0


class ParentGoneError(Exception):
    """The process that wanted the server has ended."""


class RefusedError(Exception):
    """The request failed; the text is for the parent's user."""


def main() -> None:
    """Serve the parent named by the first argument, then leave nothing behind."""
    parent = int(sys.argv[1])
    server = Server(parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _adopt_orphans()
    try:
        with socket.socket(fileno=0) as channel:
            serve(server, channel, parent)
    except (ParentGoneError, ConnectionError):
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.stop(signal.SIGQUIT)
        server.remove()


def serve(server: "Server", channel: socket.socket, parent: int) -> None:
    """Answer one request after the other until the parent closes the channel or ends."""
    for request in _requests(channel, parent):
        reply: dict[str, str | int | None]
        try:
            reply = server.handle(request) | {"error": None}
        except (RefusedError, OSError, subprocess.SubprocessError) as error:
            reply = {"error": str(error)}
        channel.sendall(f"{json.dumps(reply)}\n".encode())


def _requests(channel: socket.socket, parent: int) -> Iterator[dict[str, Any]]:
    lines = channel.makefile("r")
    # A forked child of the parent may hold the channel open, hence the check of the parent itself.
    while os.getppid() == parent:
        if select.select([channel], [], [], PARENT_CHECK_SECONDS)[0]:
            line = lines.readline()
            if not line:
                return
            yield json.loads(line)


class Server:
    """One private directory with one cluster, and the process that serves it."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._account = _account()
        self._directory = Path(tempfile.mkdtemp(prefix="pgchannels-", dir=_base_directory(self._account)))
        self._data = self._directory / "data"
        self._log = self._directory / "log"
        self._binaries = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def handle(self, request: dict[str, Any]) -> dict[str, str | int | None]:
        """Handle a request and return the resulting state."""
        match request:
            case {"action": "prepare", "binaries": binaries, "settings": settings}:
                self.prepare(Path(binaries), settings)
            case {"action": "start"}:
                self.start()
            case {"action": "stop", "signal": number}:
                self.stop(signal.Signals(number))
        return {"directory": str(self._directory), "binaries": str(self._binaries), "pid": self._pid()}

    def prepare(self, binaries: Path, settings: dict[str, str]) -> None:
        """Create an empty cluster; copy the programs first if the account cannot reach them."""
        self._give_away(self._directory)
        self._binaries = self._copy(binaries) if self._account and not self._can_run(binaries) else binaries
        self._create_cluster()
        settings = settings | {"unix_socket_directories": str(self._directory)}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {_quoted(value)}\n" for name, value in settings.items())

    def start(self) -> None:
        """Start, and return once the server takes connections."""
        if self._is_running():
            return
        _kill_orphans()
        self._run(self._binaries / "postgres", "-D", str(self._data))
        self._wait_until(lambda: self._is_ready() or not self._is_running())
        if not self._is_ready():
            self.stop(signal.SIGQUIT)
            raise RefusedError(self._failure("did not start"))

    def stop(self, how: signal.Signals) -> None:
        """Stop, and return once the server and its backends are gone."""
        if self._process is not None and self._is_running():
            self._process.send_signal(how)
            try:
                self._process.wait(STOP_LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_LIMIT_SECONDS)
        _kill_orphans()

    def remove(self) -> None:
        """Remove the directory and what outlives it."""
        # Only a killed server leaves its lock file, and with it a segment that nothing else would ever remove.
        for segment in " ".join(self._lock_file()[6:7]).split()[1:]:
            ctypes.CDLL(None).shmctl(int(segment), IPC_RMID, None)
        shutil.rmtree(self._directory)

    def _create_cluster(self) -> None:
        initdb = self._run(self._binaries / "initdb", "-D", str(self._data), *CLUSTER_OPTIONS)
        self._wait_until(lambda: initdb.poll() is not None)
        if initdb.returncode != 0:
            raise RefusedError(self._failure("could not create a cluster"))

    def _run(self, program: Path, *arguments: str) -> subprocess.Popen[bytes]:
        user, group = (self._account.pw_uid, self._account.pw_gid) if self._account else (None, None)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 -- PostgreSQL's own programs
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=os.environ | ENVIRONMENT,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                preexec_fn=_die_with_this_process(),
            )
        return self._process

    def _can_run(self, binaries: Path) -> bool:
        try:
            return self._run(binaries / "postgres", "--version").wait(START_LIMIT_SECONDS) == 0
        except PermissionError:
            return False

    def _copy(self, binaries: Path) -> Path:
        """Copy the installation, and the libraries that wheels put beside it, to where the account reaches them."""
        prefix, package = binaries.parent, binaries.parent.parent
        beside = (package / ".dylibs", package.with_name(f"{package.name}.libs"))
        for part in (binaries, prefix / "lib", prefix / "share", *beside):
            if part.is_dir():
                shutil.copytree(part, self._directory / part.relative_to(package.parent))
        for path in self._directory.rglob("*"):
            self._give_away(path)
        return self._directory / binaries.relative_to(package.parent)

    def _give_away(self, path: Path) -> None:
        if self._account:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _pid(self) -> int | None:
        return self._process.pid if self._process else None

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _is_ready(self) -> bool:
        lines = self._lock_file()
        return self._is_running() and lines[:1] == [str(self._pid())] and lines[7:8] == ["ready"]

    def _lock_file(self) -> list[str]:
        # Its lines, by PostgreSQL's src/include/utils/pidfile.h: first the pid, 7th the segment, 8th the state.
        with suppress(FileNotFoundError):
            return [line.strip() for line in (self._data / "postmaster.pid").read_text().splitlines()]
        return []

    def _wait_until(self, done: Callable[[], bool]) -> None:
        """Wait until it is done or the limit is reached.

        :raises ParentGoneError: nobody wants the outcome any more.
        """
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not done() and time.monotonic() < deadline:
            if os.getppid() != self._parent:
                raise ParentGoneError
            time.sleep(0.005)

    def _failure(self, what: str) -> str:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        return f"PostgreSQL in {self._binaries} {what}. Its log ends:\n{tail}"


def _account() -> pwd.struct_passwd | None:
    """Return the account to run the server as: None, this user, unless that is root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RefusedError(
        f"PostgreSQL does not run as root, and there is no account {' or '.join(ACCOUNTS)} to run it as."
    )


def _base_directory(account: pwd.struct_passwd | None) -> Path:
    base = Path(tempfile.gettempdir())
    is_open = all(path.stat().st_mode & stat.S_IXOTH for path in (base, *base.parents))
    if len(bytes(base)) <= LONGEST_BASE and (account is None or is_open):
        return base
    return Path("/tmp")  # noqa: S108 -- only the parent of a private directory


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _die_with_this_process() -> Callable[[], None] | None:
    """Return what a new process calls to get SIGQUIT, PostgreSQL's immediate shutdown, when this one dies."""
    if sys.platform != "linux":
        return None
    prctl, supervisor = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)  # after the change of user, which would clear it
        if os.getppid() != supervisor:
            os._exit(1)

    return bind


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _kill_orphans() -> None:
    # A killed server's busy backend notices nothing and keeps the data directory locked until its query ends.
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while children.exists() and (pids := children.read_text().split()):
        for pid in map(int, pids):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
