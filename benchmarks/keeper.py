"""Keeps one server: `keeper.py COMMAND…` in a private directory, until stdin closes.

A script of the standard library alone. The benchmark holds the other end of stdin: however it ends, the server ends
and its directory goes. `{directory}` in the command is the directory; its path is the first line of the output.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

PR_SET_PDEATHSIG = 1
STOP_LIMIT_SECONDS = 10


def main() -> None:
    """Start, say where, wait, stop, remove."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of stdin is the one way to end
    directory = Path(tempfile.mkdtemp(prefix="pgchannels-benchmark-"))
    try:
        with (directory / "log").open("wb") as log:
            server = subprocess.Popen(
                [part.format(directory=directory) for part in sys.argv[1:]],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(die_with, os.getpid()),
            )
        print(directory, flush=True)
        sys.stdin.buffer.read()
        stop(server)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server."""
    server.terminate()
    try:
        server.wait(STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(STOP_LIMIT_SECONDS)


def die_with(parent: int) -> None:
    """Let this process, a child of `parent`, be killed when `parent` ends, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main()
