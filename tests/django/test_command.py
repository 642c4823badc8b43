"""`manage.py pgchannels` is the command line of the package, on the project's database."""

from collections.abc import Iterator

import pytest

from tests.conftest import new_database
from tests.support.django_databases import django_database, has_tables
from tests.support.django_processes import CommandFailed, Layers, manage

NOWHERE = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "127.0.0.1", "PORT": 1}


@pytest.fixture
def other_url(server_url: str) -> Iterator[str]:
    """Another fresh database without the schema."""
    with new_database(server_url, "TEMPLATE template0") as url:
        yield url


def layer_on(**urls: str) -> Layers:
    """A layer with these servers."""
    return {"default": {"CONFIG": {"urls": urls}}}


async def test_upgrade_makes_the_tables_in_the_database_of_the_layer(empty_database_url: str) -> None:
    databases = {"default": {}, "messages": django_database(empty_database_url)}
    assert "were created" in await manage(databases, "pgchannels", "upgrade", alias="messages")
    assert await has_tables(empty_database_url)
    assert "no issues" in await manage(databases, "check", "--database", "messages", alias="messages")


async def test_database_and_schema_can_be_chosen(owner_url: str, empty_database_url: str) -> None:
    databases = {"default": django_database(owner_url), "messages": django_database(empty_database_url)}
    await manage(databases, "pgchannels", "upgrade", "--database", "messages", "--schema", "chat")
    assert await has_tables(empty_database_url, schema="chat")
    await manage(databases, "pgchannels", "upgrade", "--url", empty_database_url)
    assert await has_tables(empty_database_url)


async def test_failure_is_one_sentence() -> None:
    for arguments, text in (
        (("upgrade",), "CommandError: cannot reach the database"),
        (("upgrade", "--database", "other"), "CommandError: 'other' is no alias of DATABASES"),
        ((), "the following arguments are required: COMMAND"),
    ):
        with pytest.raises(CommandFailed, match=text) as failure:
            await manage({"default": NOWHERE}, "pgchannels", *arguments)
        assert "Traceback" not in str(failure.value)


async def test_each_server_of_the_layer_is_upgraded_and_checked(empty_database_url: str, other_url: str) -> None:
    databases, layers = {"default": django_database(empty_database_url)}, layer_on(a=empty_database_url, b=other_url)
    said = await manage(databases, "pgchannels", "upgrade", layers=layers)
    assert said.splitlines()[::2] == ["server a:", "server b:"]
    assert said.count("were created") == 2
    assert "no issues" in await manage(databases, "check", "--database", "default", layers=layers)
    assert (await manage(databases, "pgchannels", "status", layers=layers)).count("notifications") == 2
    await manage(databases, "pgchannels", "retention", "1h", "--server", "b", layers=layers)
    said = await manage(databases, "pgchannels", "retention", layers=layers)
    assert [line.split()[-1] for line in said.splitlines() if line.startswith("set to")] == ["need", "1h"]
    await manage(databases, "pgchannels", "downgrade", "base", "--yes", "--server", "b", layers=layers)
    assert [await has_tables(url) for url in (empty_database_url, other_url)] == [True, False]


async def test_each_alias_of_the_layer_is_upgraded_though_another_fails(
    empty_database_url: str, other_url: str
) -> None:
    databases = {"default": NOWHERE} | {"a": django_database(empty_database_url), "b": django_database(other_url)}
    layers: Layers = {"default": {"CONFIG": {"databases": ["a", "default", "b"]}}}
    with pytest.raises(CommandFailed, match="CommandError: server default: cannot reach the database") as failure:
        await manage(databases, "pgchannels", "upgrade", layers=layers)
    assert "Traceback" not in str(failure.value)
    assert [await has_tables(url) for url in (empty_database_url, other_url)] == [True, True]


async def test_server_must_be_named_where_a_command_works_on_one(owner_url: str, empty_database_url: str) -> None:
    databases, layers = {"default": django_database(owner_url)}, layer_on(a=empty_database_url, b=owner_url)
    for arguments, text in (
        (("bench",), "several servers: choose one with --server: a, b"),
        (("watch", "orders", "--topic", "orders"), "choose one with --server: a, b"),
        (("unwatch", "orders"), "choose one with --server: a, b"),
        (("status", "--json"), "choose one with --server: a, b"),
        (("status", "--server", "c"), "the layer has no server 'c': a, b"),
        (("status", "--server", "a", "--database", "default"), "leave out --database and --url"),
    ):
        with pytest.raises(CommandFailed, match=f"CommandError: .*{text}"):
            await manage(databases, "pgchannels", *arguments, layers=layers)
    assert '"revision"' in await manage(databases, "pgchannels", "status", "--json", "--server", "b", layers=layers)
    assert "server" not in await manage(databases, "pgchannels", "status", "--url", owner_url, layers=layers)
