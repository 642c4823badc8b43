"""`pgchannels durability` shows and chooses what a crash leaves of the log."""

import asyncio
from typing import TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer
from pgchannels.cli import main
from pgchannels.database import migrations
from pgchannels.django import PostgresChannelLayer
from tests.support.log import let_pass, rotate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

STATUS = "SELECT durability, durability_holds, is_durable FROM pgchannels.log_status"
LOGGED = """
SELECT count(*) FROM pg_class AS c JOIN pg_inherits AS i ON i.inhrelid = c.oid
WHERE i.inhparent = 'pgchannels.message'::regclass AND c.relpersistence = 'p'
"""


async def durability(url: str, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["durability", *arguments, "--url", url])


async def status(connection: Connection) -> tuple[object, ...]:
    """What is chosen, whether that holds for new messages, and whether all are durable."""
    return tuple(await connection.fetchrow(STATUS) or ())


async def test_new_messages_are_durable_at_once_and_all_are_when_the_older_ones_have_left(
    layer: MessageLayer, owner_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await layer.publish("room", "before")
    assert await status(connection) == ("fast", True, False)
    assert await durability(owner_url, "durable") == 0
    assert "Messages from before" in capsys.readouterr().out
    assert await status(connection) == ("durable", True, False)
    await let_pass(connection, 60)
    await rotate(connection)
    assert await status(connection) == ("durable", True, True)
    assert await durability(owner_url) == 0
    assert capsys.readouterr().out.splitlines() == [
        "The log is durable: messages outlive a crash of the server, and a failover to a synchronous standby."
    ]


async def test_log_without_messages_is_durable_at_once(
    owner_url: str, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await durability(owner_url, "durable") == 0
    assert await status(connection) == ("durable", True, True)
    assert "before" not in capsys.readouterr().out


async def test_new_slots_follow_the_choice_in_both_directions(
    layer: MessageLayer, owner_url: str, connection: Connection
) -> None:
    counts = []
    for chosen in ("durable", "fast"):
        assert await durability(owner_url, chosen) == 0
        for _ in range(4):
            await layer.publish("room", chosen)
            await let_pass(connection, 60)
            await rotate(connection)
        counts.append(await connection.fetchval(LOGGED))
    slots = await connection.fetchval("SELECT slots FROM pgchannels.log_status")
    assert counts == [slots, 0]
    assert await connection.fetchval("SELECT state IS NULL FROM pgchannels.durability")


async def test_a_slot_that_is_made_while_others_are_locked_follows_the_choice(
    layer: MessageLayer, owner_url: str, connection: Connection
) -> None:
    await layer.publish("room", "before")
    dump = await asyncpg.connect(owner_url)
    async with dump.transaction():
        await dump.execute("LOCK TABLE pgchannels.message IN ACCESS SHARE MODE")
        assert await durability(owner_url, "durable") == 0
        assert await status(connection) == ("durable", True, False)
    await dump.close()


async def test_open_transaction_that_has_published_puts_it_off_and_is_named(
    owner_url: str, layer: MessageLayer, connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    async with connection.transaction():
        await connection.execute("SELECT pgchannels.publish('room', '1')")
        assert await durability(owner_url, "durable", "--timeout", "0.1") == 1
        error = capsys.readouterr().err
        assert str(connection.get_server_pid()) in error
        assert "Run the command again" in error
        assert await durability(owner_url) == 0
        assert "The log is to be durable, but new messages are not yet" in capsys.readouterr().out
    assert await durability(owner_url, "durable") == 0
    assert (await status(connection))[:2] == ("durable", True)


async def test_messages_that_wait_in_the_outbox_stay_there(
    owner_url: str, connection: Connection, layer: MessageLayer
) -> None:
    waiting = "SELECT count(*) FROM pgchannels.outbox JOIN pgchannels.undelivered USING (transaction)"
    await connection.execute("INSERT INTO pgchannels.undelivered VALUES (1)")
    await connection.execute(
        "INSERT INTO pgchannels.outbox (transaction, is_first, address, payload, expiry_seconds)"
        " VALUES (1, false, 'topic:asgi:room', 'x', 60)"
    )
    for chosen in ("durable", "fast"):
        async with connection.transaction():
            await connection.execute(f"UPDATE pgchannels.durability SET chosen = '{chosen}'")
            await connection.execute("SELECT pgchannels.turn_outbox()")
            assert await connection.fetchval(waiting) == 1


@pytest.mark.parametrize("chosen", ["durable", "fast"])
async def test_publication_for_all_tables_refuses_nothing(
    layer: MessageLayer, owner_url: str, connection: Connection, chosen: str
) -> None:
    await connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    assert await durability(owner_url, "durable") == 0
    assert await durability(owner_url, chosen) == 0
    async with layer.subscribe("room") as subscription:
        await connection.execute("SELECT pgchannels.publish('room', '1')")
        assert (await anext(subscription)).payload == 1
    await layer.send("jobs", 1)
    channels_layer = PostgresChannelLayer(owner_url)
    await channels_layer.flush()
    await channels_layer.close()
    assert not await connection.fetchval("SELECT count(*) FROM pgchannels.message WHERE address = 'queue:asgi:jobs'")


async def test_downgrade_makes_the_log_fast_and_keeps_the_messages(
    owner_url: str, database_url: str, connection: Connection
) -> None:
    assert await durability(owner_url, "durable") == 0
    async with MessageLayer(database_url) as layer:
        await layer.publish("room", "kept")
        await connection.execute("SELECT pgchannels.publish('room', '\"also kept\"')")
    await migrations.downgrade(owner_url, revision="0001", may_lose=True)
    assert await connection.fetchval(LOGGED) == 0
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.message WHERE address = 'topic:asgi:room'") == 2
    reader = await asyncpg.connect(database_url)
    await reader.fetch("SELECT * FROM pgchannels.log_status")
    await reader.close()
    await migrations.upgrade(owner_url)
    async with MessageLayer(database_url) as layer:
        assert [message.payload for message in await layer.history("room")] == ["kept", "also kept"]


async def test_role_of_an_application_sees_it_and_may_not_choose(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await durability(database_url) == 0
    assert "The log is fast:" in capsys.readouterr().out
    assert await durability(database_url, "durable") == 1
    assert "permission denied" in capsys.readouterr().err


async def test_database_without_tables_or_with_older_ones_says_what_to_do(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await durability(empty_database_url, "durable") == 1
    assert "pgchannels upgrade" in capsys.readouterr().err
    await migrations.upgrade(empty_database_url, revision="0001")
    assert await durability(empty_database_url) == 1
    assert "at revision 0001, durability needs 0002: run `pgchannels upgrade`" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["-1", "0", "nan", "inf"])
async def test_impossible_timeout_is_refused(
    database_url: str, capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    assert await durability(database_url, "durable", f"--timeout={seconds}") == 1
    assert "--timeout must be" in capsys.readouterr().err


def test_without_a_database_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PGCHANNELS_URL", raising=False)
    assert main(["durability"]) == 1
    assert "--url" in capsys.readouterr().err
