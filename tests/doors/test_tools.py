"""The command line, Alembic's, the source distribution, and what arguments may be: what they say to a newcomer."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import make_url

from pgchannels import ChannelFull, ConfigurationError, InvalidName, InvalidPosition, MessageLayer, SchemaMissing
from pgchannels.cli import main
from pgchannels.django import PostgresChannelLayer
from pgchannels.django.revision import revision_at
from pgchannels.starlette import lifespan, websocket_messages
from tests.conftest import url_of_role
from tests.support.connections import fetchval

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 300
SECRET = "hunter2"


def ended(*command: object, cwd: Path = ROOT, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command that has ended; standard error is among its output."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


# pgchannels upgrade


async def execute(url: str, statement: str) -> None:
    """Run a statement."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def test_upgrade_says_what_it_did(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for done in ("were created, at revision 0003", "are up to date, at revision 0003"):
        assert main(["upgrade", "--url", empty_database_url]) == 0
        assert capsys.readouterr().out == f"The tables in the schema 'pgchannels' {done}.\n"


def test_upgrade_of_tables_of_a_newer_version_says_so(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upgrade", "--url", empty_database_url]) == 0
    asyncio.run(execute(empty_database_url, "UPDATE pgchannels.pgchannels_version SET version_num = '9999'"))
    capsys.readouterr()
    assert main(["upgrade", "--url", empty_database_url]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "cannot be upgraded: Can't locate revision identified by '9999'" in output.err
    assert "If a newer version of pgchannels has made them, install that here" in output.err


def test_schema_of_a_stranger_is_not_taken_over(
    server_url: str, empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrading, stranger, name = "doors_upgrading", "doors_stranger", make_url(empty_database_url).database
    asyncio.run(
        execute(
            empty_database_url,
            f"""
            CREATE ROLE {upgrading} LOGIN PASSWORD '{upgrading}'; CREATE ROLE {stranger};
            GRANT CREATE ON DATABASE "{name}" TO {upgrading}, {stranger};
            SET ROLE {stranger}; CREATE SCHEMA pgchannels; GRANT ALL ON SCHEMA pgchannels TO {upgrading}
            """,
        )
    )
    try:
        assert main(["upgrade", "--url", url_of_role(empty_database_url, upgrading)]) == 1
        assert "the schema 'pgchannels' belongs to the role 'doors_stranger'" in capsys.readouterr().err
        asyncio.run(execute(empty_database_url, f"ALTER SCHEMA pgchannels OWNER TO {upgrading}"))
        assert main(["upgrade", "--url", url_of_role(empty_database_url, upgrading)]) == 0
    finally:
        roles = f"{upgrading}, {stranger}"
        asyncio.run(execute(empty_database_url, f"DROP OWNED BY {roles} CASCADE; DROP ROLE {roles}"))


def test_superuser_runs_nothing_that_a_stranger_put_in_the_place_of_the_tables(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    planter, name = "doors_planter", make_url(empty_database_url).database
    asyncio.run(
        execute(
            empty_database_url,
            f"""
            CREATE ROLE {planter}; GRANT CREATE ON DATABASE "{name}" TO {planter}; SET ROLE {planter};
            CREATE SCHEMA pgchannels; GRANT USAGE ON SCHEMA pgchannels TO PUBLIC;
            CREATE TABLE pgchannels.caught (role text); GRANT ALL ON pgchannels.caught TO PUBLIC;
            CREATE FUNCTION pgchannels.evil() RETURNS text LANGUAGE sql
            AS $$ INSERT INTO pgchannels.caught VALUES (current_user) RETURNING '0001' $$;
            CREATE VIEW pgchannels.pgchannels_version AS SELECT pgchannels.evil() AS version_num
            """,
        )
    )
    try:
        assert main(["upgrade", "--url", empty_database_url]) == 1
        assert "belongs to the role 'doors_planter'" in capsys.readouterr().err
        assert asyncio.run(revision_at(empty_database_url, "pgchannels")) is None
        with pytest.raises(SchemaMissing):
            asyncio.run(MessageLayer(empty_database_url).open())
        assert asyncio.run(fetchval(empty_database_url, "SELECT count(*) FROM pgchannels.caught")) == 0
    finally:
        asyncio.run(execute(empty_database_url, f"DROP OWNED BY {planter} CASCADE; DROP ROLE {planter}"))


def test_url_in_the_wrong_place_is_shown_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["upgrade", f"postgresql://u:{SECRET}@localhost/db"])
    error = capsys.readouterr().err
    assert "unrecognized arguments: postgresql://u:***@localhost/db" in error


def test_empty_role_is_refused(empty_database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", "--url", empty_database_url, "--grant-to", ""]) == 1
    assert "--grant-to is empty" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["public", "none"])
def test_role_that_is_none_is_refused_by_name(
    empty_database_url: str, role: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upgrade", "--url", empty_database_url, "--grant-to", role]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert f"--grant-to {role} names no role" in output.err
    assert "give the name of the application's role" in output.err


FOREIGN = {
    "table of ours": "CREATE TABLE pgchannels.message (id int)",
    "version of another": "CREATE TABLE pgchannels.pgchannels_version (number int)",
    "function of ours": "CREATE FUNCTION pgchannels.rotate() RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "version is no table": "CREATE TYPE pgchannels.pgchannels_version AS (version_num text)",
    "half of ours": "DROP TABLE pgchannels.pgchannels_version",
    "version without a row": "DELETE FROM pgchannels.pgchannels_version",
}


@pytest.mark.parametrize("statement", FOREIGN.values(), ids=FOREIGN.keys())
def test_schema_with_other_tables_is_named(
    empty_database_url: str, statement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if statement.startswith("CREATE"):
        asyncio.run(execute(empty_database_url, "CREATE SCHEMA pgchannels"))
    else:
        assert main(["upgrade", "--url", empty_database_url]) == 0
    asyncio.run(execute(empty_database_url, statement))
    capsys.readouterr()
    assert main(["upgrade", "--url", empty_database_url]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "the schema 'pgchannels' has tables or functions that `pgchannels upgrade` did not make" in output.err
    assert "choose another schema, or drop this one" in output.err
    assert len(output.err.splitlines()) == 1


def test_alembic_names_a_schema_with_other_tables(empty_database_url: str) -> None:
    asyncio.run(execute(empty_database_url, f"CREATE SCHEMA pgchannels; {FOREIGN['table of ours']}"))
    command = [sys.executable, "-m", "alembic", "-x", f"url={empty_database_url}", "upgrade", "head"]
    run = ended(*command, PGCHANNELS_URL="", PGCHANNELS_SCHEMA="")
    assert "choose another schema" in run.stdout
    assert "Traceback" not in run.stdout


def test_other_tables_in_the_schema_do_no_harm(empty_database_url: str) -> None:
    asyncio.run(execute(empty_database_url, "CREATE SCHEMA pgchannels; CREATE TABLE pgchannels.shop (id int)"))
    assert main(["upgrade", "--url", empty_database_url]) == 0


# alembic


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "give the database as `alembic -x url=postgresql://… …` or in PGCHANNELS_URL"),
        (("-x", "url=nonsense"), "the database must be given as"),
        (("-x", f"url=postgresql://u:{SECRET}@localhost:1/db"), "localhost:1"),
        (("-x", "url=postgresql://localhost/db", "-x", "schema=Bad"), "schema='Bad': a schema is"),
    ],
)
def test_alembic_says_in_a_line_what_is_wrong(arguments: tuple[str, ...], text: str) -> None:
    command = [sys.executable, "-m", "alembic", *arguments, "upgrade", "head"]
    run = ended(*command, PGCHANNELS_URL="", PGCHANNELS_SCHEMA="")
    assert run.returncode != 0
    assert text in run.stdout
    assert "Traceback" not in run.stdout
    assert SECRET not in run.stdout
    assert len(run.stdout.splitlines()) <= 2


# Arguments.


ODD: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "since=5": (lambda layer: layer.subscribe("a", since=5), InvalidPosition, "since=5 is neither a Position"),
    "when_full": (
        lambda layer: layer.subscribe("a", when_full="block"),
        ConfigurationError,
        "when_full must be one of 'fail', 'drop_newest', 'drop_oldest', not 'block'",
    ),
    "limit": (lambda layer: layer.history("a", limit=-1), ConfigurationError, "limit must be a number of messages"),
    "dict": (
        lambda layer: layer.publish_many({"a": 1}),
        ConfigurationError,
        "messages must be pairs of a topic and a payload, such as its items(), not {'a': 1}",
    ),
    "dict of pairs": (lambda layer: layer.publish_many({"ab": 1}), ConfigurationError, "such as its items()"),
    "text of two letters": (
        lambda layer: layer.publish_many(["ab"]),
        ConfigurationError,
        "messages must be pairs of a topic and a payload, not ['ab']",
    ),
    "text": (lambda layer: layer.publish_many("ab"), ConfigurationError, "messages must be pairs"),
    "no iterable": (lambda layer: layer.publish_many(5), ConfigurationError, "messages must be pairs of a topic and"),
    "three in one": (lambda layer: layer.publish_many([("a", 1, 2)]), ConfigurationError, "messages must be pairs"),
    "one pair": (lambda layer: layer.publish_many(("a", 1)), ConfigurationError, "messages must be pairs"),
    "no topic": (lambda layer: layer.subscribe(), ConfigurationError, "subscribe needs at least one topic"),
    "list of topics": (lambda layer: layer.subscribe(["a"]), InvalidName, "['a'] is no topic"),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_argument_is_refused_by_name(name: str, database_url: str) -> None:
    call, error, text = ODD[name]
    async with MessageLayer(database_url) as layer:
        with pytest.raises(error) as caught:
            await call(layer)
        assert text in str(caught.value)
        assert await layer.history("a") == []


@pytest.mark.parametrize("error", [ValueError, TypeError, KeyError])
async def test_error_of_the_callers_own_pairs_is_raised_as_it_is(error: type[Exception], database_url: str) -> None:
    def pairs() -> Iterator[tuple[str, int]]:
        yield "a", 1
        raise error(SECRET)

    async with MessageLayer(database_url) as layer:
        with pytest.raises(error, match=SECRET):
            await layer.publish_many(pairs())
        with pytest.raises(error, match=SECRET):
            await asyncio.to_thread(layer.sync.publish_many, pairs())
        assert await layer.history("a") == []


async def test_full_channels_are_named_as_their_senders_know_them(database_url: str) -> None:
    async with MessageLayer(database_url, capacity=1) as layer, MessageLayer(database_url, capacity=1) as other:
        for channel in ("jobs", await layer.new_channel()):
            await layer.send(channel, 1)
            for sender in (layer, other):
                refusals = [refusal async for refusal in refusals_of(sender, channel)]
                assert refusals[0].startswith(f"{channel} is full: capacity=1 messages wait for it")
                assert "raise `capacity` or its `channel_capacity`" in refusals[0]


async def refusals_of(layer: MessageLayer, channel: str) -> AsyncIterator[str]:
    """What a sender is told when the channel is full, which those of other processes know a moment later."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            try:
                await layer.send(channel, 2)
            except ChannelFull as error:
                yield str(error)
                return


async def coroutine(_: object) -> None:
    """What is awaited by nobody where a function is wanted."""


@pytest.mark.parametrize(
    ("name", "value"), [("encode", 5), ("encode", coroutine), ("received", "x"), ("send_timeout", 0)]
)
async def test_odd_argument_of_the_pump_is_refused_by_name(name: str, value: Any, database_url: str) -> None:
    layer = MessageLayer(database_url)
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        await websocket_messages(None, layer.subscribe("room"), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("layer", "wait"), [(None, 0), ("layer", -1), ("layer", "x")])
def test_odd_argument_of_the_lifespan_is_refused_by_name(layer: Any, wait: Any) -> None:
    with pytest.raises(ConfigurationError, match="^layer must be" if layer is None else "^wait must be"):
        lifespan(layer and MessageLayer("postgresql://localhost/db"), wait=wait)


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://app:hunter2@h/db",
        {"NAME": "x", "PASSWORD": "hunter2"},
        "postgresql://h/mydb;password=hunter2",
        "app:hunter2@host",
        "postgresql://app%3Ahunter2@h/db",
        ["postgresql://u:hunter2@h/d"],
    ],
)
def test_no_error_shows_a_password_that_stands_where_it_should_not(value: Any) -> None:
    refusals = []
    for make in (
        lambda: PostgresChannelLayer("postgresql://localhost/db", prefix=value),
        lambda: PostgresChannelLayer("postgresql://localhost/db", default=value),
        lambda: MessageLayer("postgresql://localhost/db", capacity=value),
        lambda: MessageLayer("postgresql://localhost/db", schema=value),
    ):
        with pytest.raises((ConfigurationError, InvalidName)) as caught:
            make()
        refusals.append(str(caught.value))
    assert not [text for text in refusals if SECRET in text]
