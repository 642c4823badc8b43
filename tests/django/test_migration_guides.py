"""What the guides for projects on other layers say, run: settings before and after, snippets, commands."""

import asyncio
import difflib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from django.test import override_settings

from pgchannels import MessageLayer
from pgchannels.django import PostgresChannelLayer
from tests.django.talking import in_plain_thread
from tests.support.django_databases import tcp_road
from tests.support.django_processes import manage
from tests.support.django_settings import AddDatabase, the_layer, works
from tests.support.snippets import PLACEHOLDER, first_column, snippet, snippets
from tests.support.waiting import within

REDIS, POSTGRES = "docs/how-to/migrate-from-channels-redis.md", "docs/how-to/migrate-from-channels-postgres.md"
OURS = "pgchannels.django.PostgresChannelLayer"
THEIRS = {
    "channels_redis.core.RedisChannelLayer",
    "channels_redis.pubsub.RedisPubSubChannelLayer",
    "channels_postgres.core.PostgresChannelLayer",
}
GONE = {"hosts", "random_prefix_length"}
TWO_HOSTS = "user:password@one,two/mydb"
CONNECTION_KEYS = {"NAME", "USER", "PASSWORD", "HOST", "PORT"}


def settings_in(block: str) -> dict[str, Any]:
    """The settings of a project in which this block stands."""
    settings: dict[str, Any] = {"INSTALLED_APPS": [], "DATABASES": {}, "SECRET_KEY": "a secret for tests alone"}
    exec(block, settings)
    return settings


def settings_blocks(document: str) -> list[str]:
    """Every block that sets CHANNEL_LAYERS."""
    return [block for block in snippets(document) if "CHANNEL_LAYERS" in block]


AFTER = [block for document in (REDIS, POSTGRES) for block in settings_blocks(document) if OURS in block]
BEFORE = [block for document in (REDIS, POSTGRES) for block in settings_blocks(document) if OURS not in block]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[dict[str, Any]]:
    """A fresh database as Django writes it down, by a port of this machine."""
    async with tcp_road(database_url) as database:
        yield database


@pytest.fixture(autouse=True)
def sorted_json() -> None:
    """The format that one of the guides registers."""
    exec(snippet(REDIS, "register_serializer"), {})


@pytest.mark.parametrize("block", AFTER)
async def test_settings_after_the_change_make_a_layer_that_works(
    block: str, database: dict[str, Any], database_url: str, add_database: AddDatabase
) -> None:
    add_database("default", database)
    hosts = ",".join(2 * [f"{database['HOST']}:{database['PORT']}"])
    block = block.replace(PLACEHOLDER, database_url)
    block = block.replace(TWO_HOSTS, f"{database['USER']}:{database['PASSWORD']}@{hosts}/{database['NAME']}")
    [layer] = settings_in(block)["CHANNEL_LAYERS"].values()
    layer["CONFIG"] |= {key: database[key] for key in CONNECTION_KEYS & layer["CONFIG"].keys()}
    with override_settings(CHANNEL_LAYERS={"default": layer}):
        assert await works(the_layer())


@pytest.mark.parametrize("block", BEFORE)
def test_settings_before_the_change_hold_nothing_that_the_guide_does_not_explain(block: str) -> None:
    [layer] = settings_in(block)["CHANNEL_LAYERS"].values()
    assert layer["BACKEND"] in THEIRS
    assert layer["CONFIG"].keys() <= set(first_column(REDIS if "redis" in layer["BACKEND"] else POSTGRES))


def test_settings_of_channels_postgres_change_in_the_app_and_the_backend_alone() -> None:
    before, after, _ = settings_blocks(POSTGRES)
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert [line.split()[:2] for line in changed] == [
        [sign, word] for word in ("INSTALLED_APPS", '"BACKEND":') for sign in "-+"
    ]


@pytest.mark.parametrize("document", [REDIS, POSTGRES])
def test_every_option_of_a_guide_is_taken_here_or_said_to_be_gone(document: str) -> None:
    known = (PostgresChannelLayer.__init__.__kwdefaults__ or {}).keys()
    options = {option for option in first_column(document) if option.islower()}
    assert options - known == (GONE if document == REDIS else set())


async def test_thread_sends_as_the_guide_says(configured_layer: PostgresChannelLayer, database_url: str) -> None:
    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        await within(in_plain_thread(lambda: exec(snippet(REDIS, ".sync."), {})))
        assert (await within(anext(subscription))).payload == {"type": "chat.message", "text": "hello"}


async def test_migrate_command_of_the_guide_makes_the_tables(empty_database_url: str) -> None:
    [_, _, *arguments] = snippet(POSTGRES, "migrate pgchannels", "sh").split()
    async with tcp_road(empty_database_url) as database:
        await manage({"default": {}, "channels_postgres": database}, *arguments, alias="channels_postgres")
    async with MessageLayer(empty_database_url) as layer:
        await layer.publish("room", "hello")


async def test_statements_of_the_guide_drop_what_channels_postgres_made(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await connection.execute("""
        CREATE TABLE django_migrations (app text);
        INSERT INTO django_migrations VALUES ('channels_postgres'), ('auth');
        CREATE TABLE channels_postgres_groupchannel ();
        CREATE TABLE channels_postgres_message ();
        CREATE FUNCTION channels_postgres_notify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER channels_postgres_notify_trigger AFTER INSERT ON channels_postgres_message
            FOR EACH ROW EXECUTE PROCEDURE channels_postgres_notify();
    """)
    async with asyncio.timeout(60):
        await connection.execute(snippet(POSTGRES, "DROP", "sql"))
    left = "SELECT (SELECT count(*) FROM pg_class WHERE relname LIKE 'channels_postgres%') + count(*) FROM pg_proc"
    assert await connection.fetchval(f"{left} WHERE proname LIKE 'channels_postgres%'") == 0
    assert [row["app"] for row in await connection.fetch("SELECT app FROM django_migrations")] == ["auth"]
