"""`pgchannels retention` shows and sets how long the log keeps messages."""

import asyncio
from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer
from pgchannels.cli import main
from pgchannels.cli.retention import duration_of, in_units

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def retention(url: str, *duration: str) -> int:
    return await asyncio.to_thread(main, ["retention", *duration, "--url", url])


async def kept(connection: Connection) -> timedelta:
    """How long the log keeps messages."""
    duration: timedelta = await connection.fetchval("SELECT retention FROM pgchannels.log_status")
    return duration


async def test_shows_what_is_set_and_what_layers_need(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with MessageLayer(database_url, expiry=90):
        assert await retention(database_url) == 0
        assert capsys.readouterr().out.splitlines() == [
            "The log keeps messages for at least 90s.",
            "set to          nothing: as long as layers need",
            "layers need     90s",
        ]
        assert await retention(database_url, "1h") == 0
        assert capsys.readouterr().out.splitlines() == [
            "The log keeps messages for at least 1h.",
            "set to          1h",
            "layers need     90s",
        ]


async def test_is_raised_and_lowered_but_not_below_what_layers_need(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    async with MessageLayer(database_url, expiry=90):
        for chosen, seconds in {"2d": 172_800, "1h": 3_600, "2min": 120, "30s": 90, "0s": 90}.items():
            assert await retention(database_url, chosen) == 0
            assert await kept(connection) == timedelta(seconds=seconds), chosen
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("duration", ["1", "h", "1 hour", "-1h", "1e3s", "inf", "4000d", "", "1h 5min", "٣h"])
async def test_impossible_duration_is_refused_with_what_is_possible(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str], duration: str
) -> None:
    arguments = ["retention", f"--url={database_url}", "--", duration]
    assert await asyncio.to_thread(main, arguments) == 1
    assert "the retention must be a number with a unit, such as 90s, 30min, 1h or 2d" in capsys.readouterr().err
    assert await connection.fetchval("SELECT chosen = '0' FROM pgchannels.log")


async def test_database_without_tables_is_told(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await retention(empty_database_url, "1h") == 1
    assert "pgchannels upgrade" in capsys.readouterr().err


async def test_stranger_is_refused(stranger_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await retention(stranger_url, "1h") == 1
    assert "permission denied" in capsys.readouterr().err


def test_without_a_database_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PGCHANNELS_URL", raising=False)
    assert main(["retention"]) == 1
    assert "--url" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["90s", "30min", "1h", "2d", "36h", "0s", "1.5s"])
def test_duration_reads_as_it_is_written(text: str) -> None:
    assert in_units(duration_of(text)) == text


async def test_topic_is_kept_for_longer_and_no_longer(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await retention(database_url, "7d", "--topic", "orders.*") == 0
    assert await retention(database_url, "2d", "--topic", "*", "--prefix", "other") == 0
    capsys.readouterr()
    assert await retention(database_url, "1h", "--topic", "orders.*") == 0
    assert capsys.readouterr().out.splitlines()[3:] == ["orders.*        1h", "*               2d (prefix other)"]
    assert await retention(database_url, "0s", "--topic", "orders.*") == 0
    assert capsys.readouterr().out.splitlines()[3:] == ["*               2d (prefix other)"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["7d", "--topic", "a*b"], "a pattern has one '*', at its end"),
        (["7d", "--topic", "a b*"], "'a b' is no topic"),
        (["7d", "--topic", ""], "'' is no topic"),
        (["7d", "--topic", "a", "--prefix", "a b"], "a prefix is"),
        (["--topic", "orders.*"], "pgchannels retention 7d --topic 'orders.*'"),
    ],
)
async def test_impossible_topic_is_refused_with_what_is_possible(
    database_url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    assert await retention(database_url, *arguments) == 1
    assert error in capsys.readouterr().err
