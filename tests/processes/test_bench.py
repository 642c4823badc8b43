"""`pgchannels bench --processes` starts processes that listen, and leaves none behind."""

import asyncio
import os
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg
import pytest

from pgchannels.cli import crew, main
from tests.support.connections import has_connections
from tests.support.subprocesses import communicate
from tests.support.waiting import until

BRIEF: Final = ["--senders", "5", "--seconds", "0.2", "--processes", "3"]
NODES: Final = "SELECT count(*) FROM pgchannels.node"
_MARK: Final = "PGCHANNELS_TEST_MARK"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> str:
    """What marks all processes that the test starts, by their environment."""
    mark = secrets.token_hex(8)
    monkeypatch.setenv(_MARK, mark)
    return mark


def processes_of(mark: str) -> set[int]:
    """Those that a test has started, however they are related."""
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{_MARK}={mark}".encode() in environment.read_bytes():
                found.add(int(environment.parent.name))
        except OSError:  # somebody else's, or just gone
            pass
    return found - {os.getpid()}


async def are_gone(mark: str) -> bool:
    return not processes_of(mark)


@pytest.fixture
async def running(database_url: str, mark: str) -> AsyncIterator[Process]:
    """The command, which is to measure for seconds."""
    command = ["-m", "pgchannels", "bench", "--url", database_url, "--processes", "3", "--seconds", "1"]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, stderr=PIPE)
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()


def test_tells_both_and_what_the_difference_means(
    database_url: str, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--url", database_url, *BRIEF]) == 0
    told = capsys.readouterr().out
    for words in ("commits/s", "wake-ups/s", "p99", "3 listening processes leave", "9 connections, or 6 with"):
        assert words in told
    assert not processes_of(mark)


async def test_leaves_nothing_behind(database_url: str, mark: str, connection: Connection) -> None:
    assert await asyncio.to_thread(main, ["bench", "--url", database_url, *BRIEF]) == 0
    assert not processes_of(mark)
    for table in ("message", "node", "lease", "subscription"):
        assert await connection.fetchval(f"SELECT count(*) FROM pgchannels.{table}") == 0, table
    await until(lambda: has_connections(connection, 0))


@pytest.mark.parametrize(
    ("ends_by", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGKILL, -9)],
)
async def test_all_processes_end_with_the_command(
    ends_by: signal.Signals, status: int, running: Process, mark: str, connection: Connection
) -> None:
    await until(lambda: all_listen(connection))
    assert len(processes_of(mark)) == 5  # the command, what forks, and three
    running.send_signal(ends_by)
    _, told = await communicate(running)
    assert running.returncode == status
    assert b"Traceback" not in told
    await until(lambda: are_gone(mark))
    await until(lambda: has_connections(connection, 0))
    own = int(ends_by is signal.SIGKILL)  # until its lease ends
    assert await connection.fetchval(NODES) == own
    if not own:
        assert await connection.fetchval("SELECT count(*) FROM pgchannels.message") == 0


async def all_listen(connection: Connection) -> bool:
    listening = "SELECT count(*) = 3 FROM pgchannels.subscription WHERE address LIKE '%:idle.%'"
    return bool(await connection.fetchval(listening))


async def test_more_than_the_server_has_room_for_is_refused_before_any_starts(
    database_url: str, mark: str, capsys: pytest.CaptureFixture[str], connection: Connection
) -> None:
    name = await connection.fetchval("SELECT current_database()")
    most = await connection.fetchval("SHOW max_connections")
    assert await asyncio.to_thread(main, ["bench", "--url", database_url, "--processes", "5000"]) == 1
    assert f"max_connections={most}: ask for" in capsys.readouterr().err
    await connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 15')
    assert await asyncio.to_thread(main, ["bench", "--url", database_url, "--processes", "5"]) == 1
    told = capsys.readouterr().err
    assert "takes 18 connections, and the server has 13 left" in told  # one is the test's, one the command's
    assert "ask for 2 processes at most" in told
    assert not processes_of(mark)


async def test_process_that_cannot_start_ends_all(
    database_url: str,
    mark: str,
    capsys: pytest.CaptureFixture[str],
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crew, "_OWN_CONNECTIONS", -100)  # others take what was free a moment before
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 12')
    assert await asyncio.to_thread(main, ["bench", "--url", database_url, *BRIEF, "--processes", "6"]) == 1
    assert "a listening process did not start" in capsys.readouterr().err
    assert not processes_of(mark)
    assert await connection.fetchval(NODES) == 0


async def test_processes_that_do_not_end_in_time_are_killed_and_their_nodes_removed(
    database_url: str, mark: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_END_SECONDS", 0.0)
    monkeypatch.setattr(crew, "_END_SECONDS_EACH", 0.0)
    assert await asyncio.to_thread(main, ["bench", "--url", database_url, *BRIEF]) == 0
    await until(lambda: are_gone(mark))
    assert await connection.fetchval(NODES) == 0
