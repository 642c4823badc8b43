"""`pgchannels bench` measures, and leaves a database as it was."""

import asyncio

import asyncpg
import pytest

from pgchannels.cli import main

BRIEF = ["--senders", "5", "--seconds", "0.2"]


def test_tells_rate_latency_and_time_of_the_database(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", database_url, *BRIEF]) == 0
    told = capsys.readouterr().out
    for words in ("5 senders", "messages/s", "p50", "p99", "in the database"):
        assert words in told


def test_payload_that_no_notification_can_hold(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", database_url, "--size", "20000", *BRIEF]) == 0
    assert "messages/s" in capsys.readouterr().out


async def test_leaves_nothing_behind(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCHANNELS_URL", database_url)
    assert await asyncio.to_thread(main, ["bench", *BRIEF]) == 0
    for table in ("message", "node", "subscription"):
        assert await connection.fetchval(f"SELECT count(*) FROM pgchannels.{table}") == 0, table


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--senders", "0"], "--senders must be"),
        (["--seconds", "3600"], "--seconds must be"),
        (["--size", "-1"], "--size must be"),
        (["--processes", "-1"], "--processes must be"),
    ],
)
def test_refuses_what_is_not_bounded(
    arguments: list[str], words: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--url", database_url, *arguments]) == 1
    assert words in capsys.readouterr().err


def test_says_what_to_do_without_tables(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", empty_database_url, *BRIEF]) == 1
    assert "pgchannels upgrade" in capsys.readouterr().err


def test_says_what_to_do_without_a_database(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PGCHANNELS_URL", raising=False)
    assert main(["bench"]) == 1
    assert "--url" in capsys.readouterr().err
