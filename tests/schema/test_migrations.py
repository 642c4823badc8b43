"""The schema: its revisions, and the doors to them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from alembic.script import ScriptDirectory

from pgchannels import InvalidName, MessageLayer, SchemaMissing, SchemaOutdated
from pgchannels.database import migrations, revision
from tests.support.waiting import within

ROOT = Path(__file__).parents[2]

EVERYTHING_IN_SCHEMA = """
SELECT kind, name FROM (
    SELECT 'relation' AS kind, relname || relpersistence::text AS name, relnamespace AS namespace FROM pg_class
    UNION ALL SELECT 'function', proname, pronamespace FROM pg_proc
) AS everything
WHERE namespace = to_regnamespace('pgchannels') AND name NOT LIKE 'pgchannels_version%' ORDER BY kind, name
"""


async def everything_in_schema(url: str) -> list[tuple[str, str]]:
    """Relations and functions by name."""
    connection = await asyncpg.connect(url)
    try:
        return [(row["kind"], row["name"]) for row in await connection.fetch(EVERYTHING_IN_SCHEMA)]
    finally:
        await connection.close()


def run(*command: str, url: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the repository with this interpreter."""
    environment = os.environ | {"PGCHANNELS_URL": url}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_alembic_in_the_repository_goes_up_and_down_and_finds_nothing_to_change(empty_database_url: str) -> None:
    for arguments in (("upgrade", "head"), ("check",), ("downgrade", "base"), ("upgrade", "head")):
        result = run("alembic", *arguments, url=empty_database_url)
        assert result.returncode == 0, result.stderr
    assert asyncio.run(everything_in_schema(empty_database_url))


async def test_downgrade_leaves_nothing(owner_url: str) -> None:
    before = await everything_in_schema(owner_url)
    await migrations.downgrade(owner_url)
    assert await everything_in_schema(owner_url) == []
    await migrations.upgrade(owner_url)
    assert await everything_in_schema(owner_url) == before


async def test_script_for_other_connections_makes_the_same(owner_url: str, empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(migrations.upgrade_sql("pgchannels", "base:head"))
    assert await everything_in_schema(empty_database_url) == await everything_in_schema(owner_url)
    await connection.execute(migrations.downgrade_sql("pgchannels", "head:base"))
    await connection.close()
    assert await everything_in_schema(empty_database_url) == []


async def test_all_that_fills_with_messages_is_unlogged(owner_url: str) -> None:
    names = [name for kind, name in await everything_in_schema(owner_url) if kind == "relation"]
    logged = sorted(name for name in names if not name.endswith("u"))
    # The partitioned parents hold nothing, nor do views; nodes renew their leases a few times a minute; kept
    # topics are settings.
    assert logged == [
        "durability_pkeyp",
        "durabilityp",
        "group_statusp",
        "kept_topic_pkeyp",
        "kept_topicp",
        "lease_address_idxp",
        "lease_leased_until_idxp",
        "lease_pkeyp",
        "leasep",
        "log_pkeyp",
        "log_statusp",
        "logp",
        "member_pkeyp",
        "memberp",
        "message_address_id_idxp",
        "message_address_key_idxp",
        "message_address_number_idxp",
        "message_batch_slot_idxp",
        "messagep",
        "node_statusp",
        "queue_statusp",
    ]


def test_command_line_upgrades_and_says_so_twice(empty_database_url: str) -> None:
    for _ in range(2):
        result = run("pgchannels", "upgrade", "--url", empty_database_url, url="")
        assert (result.returncode, result.stderr) == (0, "")
        assert f"revision {revision.REVISIONS[-1]}" in result.stdout


def test_command_line_says_what_is_wrong() -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    for arguments, text in (
        ((), "PGCHANNELS_URL"),
        (("--url", nowhere), "cannot reach the database"),
        (("--url", "mysql://x"), "postgresql://"),
    ):
        result = run("pgchannels", "upgrade", *arguments, url="")
        assert result.returncode == 1
        assert result.stderr.startswith("pgchannels: ")
        assert text in result.stderr
        assert "Traceback" not in result.stderr


async def test_layer_on_a_missing_schema_names_the_command(empty_database_url: str) -> None:
    with pytest.raises(SchemaMissing, match=r"pgchannels upgrade --url … --schema other.*manage\.py migrate"):
        await MessageLayer(empty_database_url, schema="other").open()


async def test_layer_on_an_older_schema_names_the_command(owner_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revision, "REVISIONS", (*revision.REVISIONS, "9999"))
    with pytest.raises(SchemaOutdated, match=rf"revision {revision.REVISIONS[-2]}.*needs 9999.*pgchannels upgrade"):
        await MessageLayer(owner_url).open()


def test_revisions_that_the_code_knows_are_those_of_alembic() -> None:
    scripts = ScriptDirectory(str(ROOT / "alembic")).walk_revisions()
    assert [script.revision for script in scripts] == list(reversed(revision.REVISIONS))


async def test_layer_works_on_a_newer_schema(owner_url: str) -> None:
    connection = await asyncpg.connect(owner_url)
    await connection.execute("UPDATE pgchannels.pgchannels_version SET version_num = '9999'")
    await connection.close()
    async with MessageLayer(owner_url) as layer:
        await layer.publish("room", 1)


async def test_host_applications_alembic_is_not_touched(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(
        "CREATE TABLE alembic_version (version_num text); INSERT INTO alembic_version VALUES ('theirs')"
    )
    await migrations.upgrade(empty_database_url, schema="public")
    assert await connection.fetchval("SELECT version_num FROM alembic_version") == "theirs"
    await connection.close()
    async with MessageLayer(empty_database_url, schema="public") as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", 1)
        assert (await within(anext(subscription))).payload == 1


async def test_schema_may_have_another_name(empty_database_url: str) -> None:
    await migrations.upgrade(empty_database_url, schema="my_messages")
    async with (
        MessageLayer(empty_database_url, schema="my_messages") as layer,
        layer.subscribe("room") as subscription,
    ):
        await layer.publish_many([("room", 1), ("room", b"x" * 10_000)])
        await layer.send("jobs", 2)
        assert (await within(anext(subscription))).payload == 1
        assert await within(layer.receive("jobs")) == 2
    await migrations.downgrade(empty_database_url, schema="my_messages", may_lose=True)


@pytest.mark.parametrize(
    "schema", ["select", "user", "pg_mine", "Mine", "1st", "a-b", 'x"; DROP SCHEMA public', "a" * 64, ""]
)
def test_schema_that_would_need_quotes_is_refused(schema: str) -> None:
    with pytest.raises(InvalidName, match="schema="):
        MessageLayer("postgresql://localhost/db", schema=schema)


def test_revisions_fit_into_a_database_of_any_encoding() -> None:
    assert [path.name for path in (ROOT / "alembic/sql").rglob("*.sql") if not path.read_text().isascii()] == []
