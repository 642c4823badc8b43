"""A server ends with its parent, whatever ends the parent, and leaves nothing behind."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgchannels.embedded import EmbeddedServer, ServerNotStarted

from .processes import LIMIT_SECONDS, START, Parent, Traces, eventually, is_alive, python, rows

ENDINGS: dict[str, Callable[[Parent], object]] = {
    "stdin": lambda parent: parent.process.stdin and parent.process.stdin.close(),
    "SIGINT": lambda parent: os.killpg(parent.process.pid, signal.SIGINT),
    "SIGTERM": lambda parent: parent.process.terminate(),
}


def test_server_and_directory_vanish_with_the_block() -> None:
    with EmbeddedServer() as server:
        traces = Traces.of(server.url(), server.pid, server.supervisor_pid)
        assert traces.directory == server.socket_directory
        assert traces.alive() == list(traces.pids)
    assert traces.are_gone()


def test_server_and_directory_vanish_when_the_block_fails() -> None:
    with pytest.raises(ZeroDivisionError), EmbeddedServer() as server:  # noqa: PT012
        traces = Traces.of(server.url(), server.pid, server.supervisor_pid)
        raise ZeroDivisionError
    assert traces.are_gone()


def test_server_and_directory_vanish_when_the_parent_is_killed() -> None:
    with python("-c", f"{START}\ntell(); signal.pause()") as parent:
        traces = _traces(parent)
        parent.kill()
        eventually(traces.are_gone)


def test_server_and_directory_vanish_when_the_parent_forgets_to_stop_it() -> None:
    with python("-c", f"{START}\ntell(); sys.stdin.readline()") as parent:
        traces = _traces(parent)
        ENDINGS["stdin"](parent)
        eventually(traces.are_gone)


FORK = f"""{START}
child = os.fork()
if child == 0:
    signal.pause()
tell(child=child)
sys.stdin.readline()
server.stop()
print("stopped", flush=True)
signal.pause()
"""


def test_server_and_directory_vanish_when_the_parent_is_killed_and_its_forked_child_lives() -> None:
    with python("-c", FORK) as parent:
        traces, child = _traces_and_child(parent)
        try:
            parent.kill()
            eventually(traces.are_gone)
            assert is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_stop_does_not_wait_for_a_forked_child() -> None:
    with python("-c", FORK) as parent:
        traces, child = _traces_and_child(parent)
        try:
            ENDINGS["stdin"](parent)
            assert parent.line() == "stopped\n"
            assert traces.are_gone()
            assert is_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_server_and_directory_vanish_when_the_parent_is_killed_while_it_starts(
    temporary_directory: Path,
) -> None:
    begin = "from pgchannels.embedded import EmbeddedServer; print('starting', flush=True); EmbeddedServer().start()"
    with python("-c", begin) as parent:
        assert parent.line() == "starting\n"
        eventually(lambda: any(temporary_directory.iterdir()))
        parent.kill()
        eventually(lambda: not any(temporary_directory.iterdir()))


def test_hanging_start_ends_with_its_parent(temporary_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = temporary_directory / "bin"
    programs.mkdir(mode=0o755)
    for name, does in (("postgres", "exit 0"), ("initdb", "touch hanging; exec sleep 1000")):
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PGCHANNELS_POSTGRES", str(programs))
    with python("-c", START) as parent:
        eventually(lambda: any(temporary_directory.glob("*/hanging")))
        parent.kill()
        eventually(lambda: list(temporary_directory.iterdir()) == [programs])
    shutil.rmtree(programs)


def test_server_outlives_ctrl_c_until_its_parent_is_done() -> None:
    script = f"""{START}
import psycopg
try:
    tell(); signal.pause()
except KeyboardInterrupt:
    with psycopg.connect(server.url()) as connection:
        print(connection.execute("SELECT 'still here'").fetchone()[0], flush=True)
server.stop()
"""
    with python("-c", script) as parent:
        traces = _traces(parent)
        ENDINGS["SIGINT"](parent)
        assert parent.line() == "still here\n"
        eventually(traces.are_gone)


def test_server_and_directory_vanish_when_the_supervisor_is_terminated() -> None:
    with EmbeddedServer() as server:
        traces = Traces.of(server.url(), server.pid, server.supervisor_pid)
        os.kill(server.supervisor_pid, signal.SIGTERM)
        eventually(traces.are_gone)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process's life to its parent's")
def test_server_dies_with_a_killed_supervisor_and_stop_removes_the_directory() -> None:
    with EmbeddedServer() as server:
        traces = Traces.of(server.url(), server.pid, server.supervisor_pid)
        os.kill(server.supervisor_pid, signal.SIGKILL)
        eventually(lambda: not traces.alive())
        with pytest.raises(ServerNotStarted, match=str(server.supervisor_pid)):
            server.restart()
    assert traces.are_gone()


@pytest.mark.parametrize("ending", ENDINGS)
def test_command_serves_until_it_is_told_to_end(ending: str) -> None:
    with python("-m", "pgchannels.embedded") as parent:
        url = parent.line().strip()
        assert rows(url, "SELECT 1") == [(1,)]
        traces = Traces.of(url)
        ENDINGS[ending](parent)
        assert parent.process.wait(LIMIT_SECONDS) == 0
        assert traces.are_gone()


def _traces(parent: Parent) -> Traces:
    told = parent.told()
    return Traces.of(told["url"], *told["pids"])


def _traces_and_child(parent: Parent) -> tuple[Traces, int]:
    told = parent.told()
    return Traces.of(told["url"], *told["pids"]), told["child"]
