"""What the server does while it runs."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import asyncpg
import psycopg
import pytest

from pgchannels.embedded import EmbeddedServer, ServerNotStarted, ServerStartFailed

from .processes import Traces, eventually, is_alive, rows


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def durable_server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(durable=True) as server:
        rows(server.url(), "CREATE TABLE kept AS SELECT 42 AS value")
        yield server


async def test_started_server_answers_asyncpg(server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        assert await connection.fetchval("SELECT 40 + 2") == 42
    finally:
        await connection.close()


async def test_any_database_name_survives_the_url_in_asyncpg_and_libpq(server: EmbeddedServer) -> None:
    rows(server.url(), 'CREATE DATABASE "a b/ü?&"')
    url = server.url("a b/ü?&")
    connection = await asyncpg.connect(url)
    await connection.close()
    assert rows(url, "SELECT current_database()") == [("a b/ü?&",)]


def test_server_listens_on_its_unix_socket_only(server: EmbeddedServer) -> None:
    assert rows(server.url(), "SHOW listen_addresses") == [("",)]
    assert (server.socket_directory / f".s.PGSQL.{server.port}").is_socket()


def test_directory_is_closed_to_others(server: EmbeddedServer) -> None:
    assert server.socket_directory.stat().st_mode & 0o077 == 0
    assert server.data_directory.is_relative_to(server.socket_directory)


def test_cluster_is_utf8_in_the_c_locale(server: EmbeddedServer) -> None:
    query = "SELECT pg_encoding_to_char(encoding), datcollate::text FROM pg_database WHERE datname = 'template1'"
    assert rows(server.url(), query) == [("UTF8", "C")]


@pytest.mark.parametrize(("durable", "value"), [(False, "off"), (True, "on")])
def test_durability_is_a_choice(durable: bool, value: str) -> None:
    query = "SELECT DISTINCT setting FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes')"
    with EmbeddedServer(durable=durable) as server:
        assert rows(server.url(), query) == [(value,)]


def test_settings_reach_the_server_unchanged() -> None:
    prefix = r"it's \n % "
    with EmbeddedServer(settings={"log_line_prefix": prefix, "max_connections": "17"}) as server:
        assert rows(server.url(), "SHOW log_line_prefix") == [(prefix,)]
        assert rows(server.url(), "SHOW max_connections") == [("17",)]


def test_callers_locale_and_postgres_variables_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "no_SUCH")
    with EmbeddedServer() as server:
        assert rows(server.url(), "SELECT 1") == [(1,)]


def test_failed_start_quotes_the_log_and_leaves_nothing() -> None:
    server = EmbeddedServer(settings={"shared_buffers": "nonsense"})
    with pytest.raises(ServerStartFailed, match=r'(?s)Its log ends:.*"shared_buffers": "nonsense"'):
        server.start()
    with pytest.raises(ServerNotStarted, match="not started"):
        server.url()


def test_server_that_is_not_started_says_so() -> None:
    server = EmbeddedServer()
    for ask in (server.kill, server.restart, server.url):
        with pytest.raises(ServerNotStarted, match="not started"):
            ask()
    server.stop()


def test_stopped_server_starts_again_empty(durable_server: EmbeddedServer) -> None:
    durable_server.stop()
    durable_server.start()
    with pytest.raises(psycopg.errors.UndefinedTable):
        rows(durable_server.url(), "TABLE kept")


def test_starting_a_running_server_changes_nothing(server: EmbeddedServer) -> None:
    pid = server.pid
    server.start()
    assert server.pid == pid


def test_committed_data_survives_kill(durable_server: EmbeddedServer) -> None:
    traces = Traces.of(durable_server.url(), durable_server.pid)
    url = durable_server.url()
    durable_server.kill()
    assert traces.alive() == []
    durable_server.start()
    assert durable_server.url() == url
    assert rows(url, "TABLE kept") == [(42,)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_keeps_data_and_url(durable_server: EmbeddedServer, mode: Literal["fast", "immediate"]) -> None:
    url, pid = durable_server.url(), durable_server.pid
    durable_server.restart(mode)
    assert durable_server.url() == url
    assert not is_alive(pid)
    assert rows(url, "TABLE kept") == [(42,)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives a killed server's backends to the supervisor")
async def test_killed_server_starts_again_although_a_backend_was_busy(server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(server.url())
    query = asyncio.create_task(connection.fetch("SELECT count(*) FROM generate_series(1, 1e12::bigint)"))
    active = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%1e12%' AND pid <> pg_backend_pid()"
    await asyncio.to_thread(eventually, lambda: rows(server.url(), active))
    server.kill()
    server.start()
    assert rows(server.url(), "SELECT 1") == [(1,)]
    with pytest.raises(asyncpg.PostgresConnectionError):
        await query


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is listed in /proc")
def test_killed_and_stopped_server_leaves_no_shared_memory(server: EmbeddedServer) -> None:
    segment = (server.data_directory / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert segment in _segments()
    server.kill()
    server.stop()
    assert segment not in _segments()


def _segments() -> set[str]:
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()}


def test_server_survives_the_thread_that_started_it() -> None:
    server = EmbeddedServer()
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    with server:
        assert rows(server.url(), "SELECT 1") == [(1,)]
