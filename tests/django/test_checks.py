"""What `manage.py check` says of a project's layers and of their tables."""

import asyncio
from typing import Any

import asyncpg
import pytest
from django.core import checks
from django.core.management import call_command
from django.db import connections
from django.test import modify_settings, override_settings

from pgchannels.database import revision
from pgchannels.django import PostgresChannelLayer
from pgchannels.django.checks import check_layers, check_tables
from tests.django.impossible import IMPOSSIBLE, POSTGRESQL, URL
from tests.support.django_databases import django_database, tcp_road
from tests.support.django_processes import manage
from tests.support.django_settings import AddDatabase, channel_layers

BACKEND = "pgchannels.django.PostgresChannelLayer"


class LayerOfAProject(PostgresChannelLayer):
    """A layer that a project derived from ours."""


def check_settings(layers: object) -> list[checks.CheckMessage]:
    """What is found in these `CHANNEL_LAYERS`."""
    with override_settings(CHANNEL_LAYERS=layers):
        return check_layers()


def check_config(**config: Any) -> list[checks.CheckMessage]:
    """What is found in a layer with this `CONFIG`."""
    return check_settings({"default": {"BACKEND": BACKEND, "CONFIG": config}})


async def check_database(*aliases: str) -> list[tuple[str | None, str | None]]:
    """The ids of what is found in these databases, with the hints."""

    def check() -> list[tuple[str | None, str | None]]:
        try:
            return [(message.id, message.hint) for message in check_tables(databases=aliases)]
        finally:
            connections.close_all()

    return await asyncio.to_thread(check)


@pytest.mark.parametrize(
    "config", [{"url": URL}, POSTGRESQL, {"url": URL, "capacity": 5, "schema": "chat"}], ids=["url", "keys", "options"]
)
def test_good_configuration_passes_though_the_server_is_away(config: dict[str, Any]) -> None:
    assert check_config(**config) == []


def test_example_in_an_error_is_shown_as_it_is_and_a_password_is_not() -> None:
    (found,) = check_config(url="mysql://me:hunter2@127.0.0.1:1/shop")
    assert "'postgresql://user:password@host:port/name'" in found.msg
    (found,) = check_config(url=URL, **{"me:hunter2@host": 5})
    assert "hunter2" not in found.msg


@pytest.mark.parametrize(("config", "trouble"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
@pytest.mark.parametrize("key", ["CONFIG", "TEST_CONFIG"])
def test_impossible_configuration_is_one_error_with_a_hint(config: dict[str, Any], trouble: str, key: str) -> None:
    layer = {"BACKEND": BACKEND, "CONFIG": {"url": URL}} | {key: config}
    [found] = check_settings({"default": layer})
    assert isinstance(found, checks.Error)
    assert found.id == "pgchannels.E003"
    assert found.msg.startswith(f"CHANNEL_LAYERS['default']['{key}']: ")
    assert found.hint


def test_hint_names_the_option_that_was_probably_meant() -> None:
    [found] = check_config(url=URL, capasity=5)
    assert (found.msg, found.hint) == (
        "CHANNEL_LAYERS['default']['CONFIG']: unknown option 'capasity' in CONFIG.",
        "Did you mean 'capacity'?",
    )


def test_each_wrong_layer_is_told() -> None:
    found = check_settings({name: {"BACKEND": BACKEND, "CONFIG": {}} for name in ("default", "other")})
    assert ["'default'" in found[0].msg, "'other'" in found[1].msg] == [True, True]


def test_layer_of_a_project_that_inherits_ours_is_checked() -> None:
    layer = {"BACKEND": f"{__name__}.LayerOfAProject", "CONFIG": {"url": URL, "capacity": 0}}
    [found] = check_settings({"default": layer})
    assert found.id == "pgchannels.E003"


@pytest.mark.parametrize(
    ("layers", "number"),
    [
        (["default"], "E001"),
        ({"default": {"BACKEND": "pgchannels.django.PostgresLayer"}}, "E002"),
        ({"default": {"BACKEND": BACKEND}}, "E003"),
        ({"default": {"BACKEND": BACKEND, "CONFIG": [URL]}}, "E003"),
        ({}, "W001"),
        ({"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}, "W001"),
        ({"default": {"BACKEND": "not.installed.Layer"}}, "W001"),
        ({"default": None}, "E002"),
        ({"default": {}}, "E002"),
        ({"default": {"BACKEND": None}}, "E002"),
        ({"default": {"BACKEND": BACKEND, "CONFIG": {"OPTIONS": "x", "NAME": "db"}}}, "E003"),
        ({"default": {"BACKEND": BACKEND, "CONFIG": {"OPTIONS": {1: 1}, "NAME": "db"}}}, "E003"),
    ],
)
def test_settings_without_a_layer_of_ours_are_told(layers: object, number: str) -> None:
    found = check_settings(layers)[0]
    assert (found.id, bool(found.hint)) == (f"pgchannels.{number}", True)


@pytest.mark.parametrize("using", ["first", "second", "as first", "elsewhere"])
def test_transactions_on_none_of_several_servers_are_told(add_database: AddDatabase, using: str) -> None:
    for port, alias in enumerate(("first", "second", "elsewhere"), 1):
        add_database(alias, {**POSTGRESQL, "PORT": port})
    add_database("as first", {**POSTGRESQL, "USER": "another"})
    found = check_config(databases=["first", "second"], using=using)
    assert [(message.id, bool(message.hint)) for message in found] == [("pgchannels.W007", True)] * (
        using == "elsewhere"
    )


def test_app_that_is_not_installed_is_told() -> None:
    with modify_settings(INSTALLED_APPS={"remove": "pgchannels.django"}):
        [found] = check_config(url=URL)
    assert found.id == "pgchannels.W002"


def test_checks_are_registered_under_a_tag_and_connect_to_no_database_unasked() -> None:
    with channel_layers(**POSTGRESQL):
        assert checks.run_checks(tags=["pgchannels"]) == []
        call_command("check", "--tag", "pgchannels")


async def test_tables_that_are_there_pass(owner_url: str, add_database: AddDatabase) -> None:
    add_database("shop", django_database(owner_url))
    with channel_layers(database="shop"):
        assert await check_database("shop") == []


async def test_missing_tables_are_told_with_the_command_that_makes_them(
    empty_database_url: str, add_database: AddDatabase
) -> None:
    add_database("shop", django_database(empty_database_url))
    with channel_layers(database="shop"):
        hint = "`manage.py migrate --database shop` creates or upgrades them."
        assert await check_database("shop") == [("pgchannels.W003", hint)]


async def test_tables_of_another_schema_than_was_migrated_are_told_with_the_command_that_makes_them(
    empty_database_url: str, add_database: AddDatabase
) -> None:
    await manage({"default": django_database(empty_database_url)}, "migrate")
    add_database("shop", django_database(empty_database_url))
    with channel_layers(database="shop", schema="chat"):
        hint = "`manage.py pgchannels upgrade --database shop --schema chat` creates or upgrades them."
        assert await check_database("shop") == [("pgchannels.W003", hint)]


async def test_older_tables_are_told(
    owner_url: str, add_database: AddDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgchannels.django.checks.REVISIONS", (*revision.REVISIONS, "9999"))
    add_database("shop", django_database(owner_url))
    with channel_layers(database="shop"):
        [(number, _)] = await check_database("shop")
    assert number == "pgchannels.W004"


async def test_user_without_privileges_is_told(
    owner_url: str, connection: "asyncpg.Connection[asyncpg.Record]", add_database: AddDatabase
) -> None:
    role = f"guest_{id(connection)}"
    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    async with tcp_road(owner_url) as database:
        add_database("shop", database | {"USER": role, "PASSWORD": "guest"})
        with channel_layers(database="shop"):
            [(number, hint)] = await check_database("shop")
    await connection.execute(f"DROP ROLE {role}")
    assert number == "pgchannels.W005"
    assert "--grant-to" in str(hint)


async def test_databases_that_were_not_asked_for_or_that_no_layer_uses_are_left_alone(
    empty_database_url: str, owner_url: str, add_database: AddDatabase
) -> None:
    add_database("shop", django_database(empty_database_url))
    with channel_layers(database="shop"):
        assert await check_database() == []
    with channel_layers(url=owner_url):
        assert await check_database("shop") == []


async def test_wrong_configuration_is_no_matter_of_the_database(add_database: AddDatabase) -> None:
    add_database("shop", POSTGRESQL)
    for wrong in ({"schema": "No Schema"}, {"capacity": 0}):
        with channel_layers(database="shop", **wrong):
            assert await check_database("shop") == []
