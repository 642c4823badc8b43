"""`pgchannels status` shows what the log keeps, who receives, and what waits."""

import asyncio
import json
import re
from typing import Any, TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer
from pgchannels.cli import main
from pgchannels.database import migrations
from tests.support.waiting import LIMIT_SECONDS, until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def status(url: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert await asyncio.to_thread(main, ["status", *options, "--url", url]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


async def status_for_programs(url: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await status(url, capsys, "--json"))
    return found


async def test_new_database_is_empty(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (await status(database_url, capsys)).splitlines()
    assert re.fullmatch(r"schema         pgchannels, revision \d{4}, PostgreSQL \d+.*", lines[0])
    assert re.fullmatch(r"log            .* KiB in 3 slots, empty: nothing was sent yet", lines[1])
    assert re.fullmatch(r"transactions   0 to deliver, outbox \d+ KiB", lines.pop(6))
    assert lines[2:] == [
        "retention      0s (set to nothing; layers need 0s)",
        "nodes          0",
        "topics         0 with subscribers",
        "queues         0, 0 messages wait; 0 in progress, 0 dead letters",
        "notifications  0% of PostgreSQL's queue is in use",
    ]


async def test_running_layer_shows_with_what_it_receives(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await asyncio.to_thread(main, ["retention", "7d", "--topic", "orders.*", "--url", database_url]) == 0
    assert "orders.*        7d" in capsys.readouterr().out
    async with MessageLayer(database_url, expiry=90, heartbeat=25) as layer, layer.subscribe("room"):
        await layer.send("jobs", 1)
        await connection.execute("INSERT INTO pgchannels.undelivered VALUES (3)")
        await connection.execute(
            "INSERT INTO pgchannels.node (id, name, leased_until) VALUES (gen_random_uuid(), 'x', 'epoch')"
        )
        text = await status(database_url, capsys)
        found = await status_for_programs(database_url, capsys)
    assert (
        "\ndurability     fast\nretention      90s (set to nothing; layers need 90s)\n               7d for orders.*\n"
        in text
    )
    assert "\nnodes          1, and 1 that ended without closing\n" in text
    assert re.search(
        r"\nqueues         1, 1 messages wait, the oldest for \d+ s; 0 in progress, 0 dead letters\n", text
    )
    assert found["kept_topics"] == [{"prefix": "asgi", "topic": "orders.*", "seconds": 604_800}]
    numbers = (
        "nodes",
        "nodes_that_ended",
        "topics",
        "queues",
        "waiting",
        "undelivered_transactions",
        "retention_seconds",
    )
    assert [found[name] for name in numbers] == [1, 1, 1, 1, 1, 1, 90]
    assert found["warnings"] == []


async def test_work_in_progress_and_dead_letters_do_not_wait(
    layer: MessageLayer, database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        await layer.send("jobs", 1)
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(LIMIT_SECONDS), layer.claim("jobs", attempts=1):
            raise ZeroDivisionError
    await until(lambda: connection.fetchval("SELECT waiting FROM pgchannels.queue_status WHERE name = 'jobs.dead'"))
    async with asyncio.timeout(LIMIT_SECONDS), layer.claim("jobs"):
        text = await status(database_url, capsys)
        found = await status_for_programs(database_url, capsys)
    assert re.search(
        r"\nqueues         2, 1 messages wait, the oldest for \d+ s; 1 in progress, 1 dead letters\n", text
    )
    assert [found[name] for name in ("waiting", "in_progress", "dead_letters")] == [1, 1, 1]


async def test_log_that_cannot_rotate_and_locked_slots_are_warnings(
    owner_url: str, database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    async with MessageLayer(database_url, expiry=60, heartbeat=600) as layer:
        await layer.publish("room", 1)
        locking = await asyncpg.connect(owner_url)
        async with locking.transaction():
            await locking.execute("SELECT FROM pgchannels.log_state FOR UPDATE")
            await connection.execute("SET lock_timeout = '50ms'")
            await locking.execute("INSERT INTO pgchannels.filled_slot VALUES (1, now() - interval '1 h', 1)")
            await locking.execute("UPDATE pgchannels.log_state SET rotated_at = now() - interval '1 h'")
        found = await status_for_programs(database_url, capsys)
        await locking.close()
    assert [warning.partition(":")[0] for warning in found["warnings"]] == [
        "the log cannot rotate, and grows",
        "1 slots cannot be emptied",
    ]


async def test_role_that_may_only_use_a_layer_may_ask(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await status(database_url, capsys)


async def test_database_without_tables_is_told(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["status", "--url", empty_database_url]) == 1
    assert "pgchannels upgrade" in capsys.readouterr().err


async def test_tables_of_an_older_version_are_told(owner_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    await migrations.downgrade(owner_url, revision="0001")
    assert await asyncio.to_thread(main, ["status", "--url", owner_url]) == 1
    assert "are at revision 0001, status needs 0002: run `pgchannels upgrade`" in capsys.readouterr().err


async def test_choice_that_does_not_hold_yet_is_told(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    async with MessageLayer(database_url) as layer:
        await layer.publish("room", 1)
    await connection.execute("UPDATE pgchannels.durability SET chosen = 'durable'")
    assert "durability     durable, new messages are not yet" in await status(database_url, capsys)


async def test_stranger_is_refused(stranger_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asyncio.to_thread(main, ["status", "--url", stranger_url]) == 1
    assert "permission denied" in capsys.readouterr().err


async def test_log_that_nobody_rotates_because_nobody_is_there_is_no_warning(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    async with MessageLayer(database_url) as layer:
        await layer.publish("room", 1)
    await connection.execute("UPDATE pgchannels.log_state SET rotated_at = now() - interval '1 day'")
    assert (await status_for_programs(database_url, capsys))["warnings"] == []


async def test_tables_of_a_newer_version_are_a_warning(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await connection.execute("UPDATE pgchannels.pgchannels_version SET version_num = '9999'")
    assert "\nwarning: this version of pgchannels knows the tables up to revision 0" in await status(
        database_url, capsys
    )


@pytest.mark.parametrize("command", [["status"], ["retention"], ["retention", "1h"], ["retention", "1h", "--topic=a"]])
async def test_lock_of_somebody_else_is_an_error_and_no_wait_for_ever(
    database_url: str, connection: Connection, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    async with connection.transaction():
        await connection.execute("LOCK TABLE pgchannels.log IN ACCESS EXCLUSIVE MODE")
        assert await asyncio.to_thread(main, [*command, "--url", database_url]) == 1
    assert "somebody holds a lock" in capsys.readouterr().err
