"""The process between a cluster's programs and the test: it starts them, and ends them all when the test has ended.

It runs as a script: `keeper.py <account or nothing> <directory>`. Requests and replies are lines of JSON on its
standard input and output; the end of its input, however the test came to its own, is the order to leave nothing behind.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

PARENT_CHECK_SECONDS = 0.2
STOP_LIMIT_SECONDS = 10.0
POLL_SECONDS = 0.02
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
IPC_RMID = 0


def main() -> None:
    """Start what is asked for until nobody asks any more."""
    account, directory = sys.argv[1] or None, Path(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # A Patroni that was killed leaves its PostgreSQL to this process.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        for request in _requests():
            print(json.dumps(_start(account, directory, **request)), flush=True)
    finally:
        _end_all(directory)
        shutil.rmtree(directory)


def _requests() -> Iterator[dict[str, Any]]:
    parent, buffered = os.getppid(), b""
    while os.getppid() == parent:
        _reap()
        if select.select([0], [], [], PARENT_CHECK_SECONDS)[0]:
            read = os.read(0, 65536)
            if not read:
                return
            *lines, buffered = (buffered + read).split(b"\n")
            yield from map(json.loads, lines)


def _start(account: str | None, directory: Path, *, command: list[str], log: str) -> int:
    with Path(log).open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(directory)},
            user=account,
            group=account and _group_of(account),
            extra_groups=None if account is None else [],
            start_new_session=True,
            preexec_fn=_ended_with_this_process(),
        ).pid


def _group_of(account: str) -> int:
    import pwd

    return pwd.getpwnam(account).pw_gid


def _ended_with_this_process() -> Callable[[], None]:
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_all(directory: Path) -> None:
    """End the servers so that they leave no shared memory, and everything else at once."""
    deadline = time.monotonic() + STOP_LIMIT_SECONDS
    while children := _children():  # each may leave others
        is_patient = time.monotonic() < deadline
        postmasters = {int(line) for lock in _locks(directory) for line in lock[:1]} if is_patient else set()
        for pid in children - postmasters:
            _send(pid, signal.SIGKILL)
        for pid in children & postmasters:
            _send(pid, signal.SIGQUIT)
            _send(pid, signal.SIGCONT)
        _reap()
        time.sleep(POLL_SECONDS)
    for lock in _locks(directory):  # only of servers that were killed
        remove_segment(lock)


def _locks(directory: Path) -> list[list[str]]:
    return [lock_of(node) for node in directory.iterdir()]


def lock_of(node: Path) -> list[str]:
    """The lines of a server's lock file; by PostgreSQL's src/include/utils/pidfile.h the first one is its pid."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return (node / "data/postmaster.pid").read_text().splitlines()
    return []


def remove_segment(lock: list[str]) -> None:
    """Remove the shared memory of a server that was killed; the 7th line of its lock file names it."""
    for segment in " ".join(lock[6:7]).split()[1:]:
        ctypes.CDLL(None).shmctl(int(segment), IPC_RMID, None)


def _children() -> set[int]:
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


if __name__ == "__main__":
    main()
