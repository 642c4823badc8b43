"""`pgchannels downgrade` says what it would lose, and does not do it without `--yes`."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer
from pgchannels.cli import main
from pgchannels.database.revision import REVISIONS
from tests.support.waiting import within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ROOT = Path(__file__).parents[2]
HOURS = 3_600 * 24


async def downgrade(url: str, *arguments: str) -> int:
    """Run the command."""
    return await asyncio.to_thread(main, ["downgrade", *arguments, "--url", url])


async def revision(connection: Connection) -> str:
    """The revision of the tables."""
    return str(await connection.fetchval("SELECT version_num FROM pgchannels.pgchannels_version"))


async def leave_work(layer: MessageLayer) -> None:
    """Leave a dead letter and a message in a queue for longer than the log keeps messages."""
    await layer.send("jobs", "fails", expiry=HOURS)
    with pytest.raises(ZeroDivisionError):
        async with layer.claim("jobs", attempts=1):
            raise ZeroDivisionError
    await layer.send("jobs", "waits", expiry=HOURS)


async def test_with_nothing_to_lose_it_goes_back_and_says_so(
    owner_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await downgrade(owner_url, "0001") == 0
    assert capsys.readouterr().out == f"The tables in the schema 'pgchannels' went back, {REVISIONS[-1]} → 0001.\n"
    assert await revision(connection) == "0001"
    assert await downgrade(owner_url, "base") == 0
    assert "were removed" in capsys.readouterr().out


async def test_each_loss_is_named_and_nothing_is_done_without_yes(
    owner_url: str, layer: MessageLayer, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await leave_work(layer)
    async with layer.claim("jobs"):
        await layer.send("jobs", "waits", expiry=HOURS)
        assert await asyncio.to_thread(main, ["durability", "durable", "--url", owner_url]) == 0
        assert await downgrade(owner_url, "0001") == 1
        told = capsys.readouterr().err
        for loss in (
            "messages under work, which go back to their queues and may be done twice: 1;",
            "messages in work queues that last for longer than the log, and leave with it: 2,",
            "dead letters among them: 1;",
            "the log is durable, and becomes fast",
            "unless `pgchannels durability fast` is run before",
            "give --yes",
        ):
            assert loss in told
        assert await revision(connection) == REVISIONS[-1]
        assert await downgrade(owner_url, "0001", "--yes") == 0
        assert capsys.readouterr().out.count("lost: ") == 3
        assert await revision(connection) == "0001"


async def test_removing_the_tables_names_all_that_is_in_them(
    owner_url: str, layer: MessageLayer, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await layer.publish("room", "in the log")
    await connection.execute("INSERT INTO pgchannels.member VALUES ('topic:asgi:room', 'queue:asgi:jobs', 9)")
    for arguments in (["1h"], ["7d", "--topic", "orders.*"]):
        assert await asyncio.to_thread(main, ["retention", *arguments, "--url", owner_url]) == 0
    assert await downgrade(owner_url, "base") == 1
    told = capsys.readouterr().err
    for loss in (
        "messages in the log: 1",
        "work queues in groups: 1",
        "topics with a retention of their own: 1",
        "the retention that was set for the log: 01:00:00",
    ):
        assert loss in told


async def test_work_that_went_back_with_the_tables_is_received_by_the_next_version(
    owner_url: str, database_url: str, connection: Connection
) -> None:
    async with MessageLayer(database_url) as layer:
        await layer.send("jobs", "under work")
        async with layer.claim("jobs"):
            assert await downgrade(owner_url, "0002", "--yes") == 0
            claimed = await connection.fetch(
                "SELECT channel FROM pgchannels.message WHERE address = 'queue:asgi:jobs' ORDER BY number"
            )
            assert len(claimed) == 2
    assert await asyncio.to_thread(main, ["upgrade", "--url", owner_url]) == 0
    async with MessageLayer(database_url) as layer:
        assert await within(layer.receive("jobs")) == "under work"


async def test_alembic_refuses_as_well_and_names_the_command(
    owner_url: str, layer: MessageLayer, connection: Connection
) -> None:
    await leave_work(layer)
    environment = os.environ | {"PGCHANNELS_URL": owner_url}
    command = [sys.executable, "-m", "alembic", "downgrade", "0002"]
    result = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    told = result.stdout + result.stderr
    assert result.returncode != 0
    assert "messages in work queues that last for longer" in told
    assert "run `pgchannels downgrade 0002 --yes`" in told
    assert "Traceback" not in told
    assert await revision(connection) == REVISIONS[-1]


@pytest.mark.parametrize("wrong", ["9999", "", "+1", "head"])
async def test_revision_that_is_no_older_one_is_refused(
    owner_url: str, connection: Connection, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    assert await downgrade(owner_url, wrong) == 1
    told = capsys.readouterr().err
    older = ", ".join(["base", *REVISIONS[:-1]])
    assert told == f"pgchannels: {wrong!r} is no revision to go back to from {REVISIONS[-1]}: give one of {older}\n"
    assert await revision(connection) == REVISIONS[-1]


async def test_tables_of_a_newer_version_are_left_alone(
    owner_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await connection.execute("UPDATE pgchannels.pgchannels_version SET version_num = '9999'")
    assert await downgrade(owner_url, "base", "--yes") == 1
    assert "revision 9999, which this version of pgchannels does not know" in capsys.readouterr().err


async def test_database_without_tables_says_so(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await downgrade(empty_database_url, "base") == 1
    assert "there are no pgchannels tables" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf"])
@pytest.mark.parametrize("command", [["upgrade"], ["downgrade", "base"]])
def test_impossible_timeout_is_refused(
    owner_url: str, capsys: pytest.CaptureFixture[str], command: list[str], seconds: str
) -> None:
    assert main([*command, "--url", owner_url, f"--timeout={seconds}"]) == 1
    assert "--timeout must be" in capsys.readouterr().err
