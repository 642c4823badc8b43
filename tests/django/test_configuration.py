"""How a project says which database its layer uses."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import pytest
from channels.layers import get_channel_layer
from django.conf import settings
from django.test import override_settings

from pgchannels import ConfigurationError, InvalidName, SchemaMissing
from pgchannels.django import PostgresChannelLayer
from tests.django.impossible import IMPOSSIBLE, POSTGRESQL
from tests.support.django_databases import django_database, socket_road, tcp_road
from tests.support.django_settings import AddDatabase, channel_layers, the_layer, works
from tests.support.waiting import within

# For a configuration that is taken though it should not be.
IMPATIENT = {"send_timeout": 1}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[dict[str, Any]]:
    """A fresh database as Django writes it down, by a port of this machine."""
    async with tcp_road(database_url) as database:
        yield database


async def use_layer() -> None:
    """Get the layer of the settings and send by it, as a project does first."""
    await within(the_layer().send("work_queue", {"type": "hello"}))


async def test_url_names_the_database(database_url: str) -> None:
    with channel_layers(url=database_url):
        assert await works(the_layer())


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg"])
async def test_url_may_name_any_driver_of_postgresql(database_url: str, scheme: str) -> None:
    with channel_layers(url=database_url.replace("postgresql", scheme, 1)):
        assert await works(the_layer())


async def test_layer_of_the_settings_is_made_once(database_url: str) -> None:
    with channel_layers(url=database_url):
        assert get_channel_layer() is get_channel_layer()


@pytest.mark.parametrize("alias", ["default", "messages"])
async def test_alias_names_a_database_of_django(
    database: dict[str, Any], add_database: AddDatabase, alias: str
) -> None:
    add_database(alias, database)
    with channel_layers(database=alias):
        assert await works(the_layer())


async def test_keys_of_a_django_database_name_the_database(database: dict[str, Any]) -> None:
    with channel_layers(**database):
        assert await works(the_layer())


async def test_whole_django_database_can_be_the_configuration(
    database: dict[str, Any], add_database: AddDatabase
) -> None:
    add_database("default", database)
    # Django has put all its own defaults into this one.
    assert "CONN_MAX_AGE" in settings.DATABASES["default"]
    with channel_layers(**settings.DATABASES["default"]):
        assert await works(the_layer())


async def test_host_can_be_the_folder_of_a_socket(database_url: str) -> None:
    with TemporaryDirectory(prefix="socket-", dir="/tmp") as folder:
        async with socket_road(database_url, Path(folder)) as database:
            with channel_layers(**database):
                assert await works(the_layer())


async def test_alias_can_have_the_folder_of_a_socket_as_host(database_url: str, add_database: AddDatabase) -> None:
    with TemporaryDirectory(prefix="socket-", dir="/tmp") as folder:
        async with socket_road(database_url, Path(folder)) as database:
            add_database("default", database)
            with channel_layers(database="default"):
                assert await works(the_layer())


@pytest.mark.parametrize("port_type", [int, str])
async def test_port_may_be_a_number_or_a_text(database: dict[str, Any], port_type: type) -> None:
    with channel_layers(**database | {"PORT": port_type(database["PORT"])}):
        assert await works(the_layer())


async def test_empty_host_and_port_are_those_of_the_environment(
    database: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGHOST", database["HOST"])
    monkeypatch.setenv("PGPORT", str(database["PORT"]))
    with channel_layers(**database | {"HOST": "", "PORT": ""}):
        assert await works(the_layer())


async def test_user_and_password_may_hold_any_character(
    connection: "asyncpg.Connection[asyncpg.Record]", database: dict[str, Any]
) -> None:
    user, password = f"us er@:/?#%'\"{secrets.token_hex(4)}", "pass word@:/?#%'\"&=ß"
    quoted = '"{}"'.format(user.replace('"', '""'))
    await connection.execute(
        f"CREATE ROLE {quoted} SUPERUSER LOGIN PASSWORD '{password.replace(chr(39), 2 * chr(39))}'"
    )
    try:
        with channel_layers(**database | {"USER": user, "PASSWORD": password}):
            assert await works(the_layer())
    finally:
        await connection.execute(f"DROP ROLE {quoted}")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"application_name": "shop"},
        {"connect_timeout": 10},
        {"sslmode": "prefer"},
        {"sslmode": "disable"},
        {"options": "-c statement_timeout=30000"},
        {"pool": True},
        {"isolation_level": 2},
        {"client_encoding": "UTF8"},
        {"assume_role": None},
        {"server_side_binding": True},
    ],
    ids=lambda options: "+".join(options) or "none",
)
async def test_alias_may_have_the_options_that_django_or_psycopg_knows(
    database: dict[str, Any], add_database: AddDatabase, options: dict[str, Any]
) -> None:
    add_database("messages", database | {"OPTIONS": options})
    with channel_layers(database="messages"):
        assert await works(the_layer())


async def test_layers_own_options_stand_beside_the_database(database_url: str) -> None:
    key = secrets.token_hex(16)
    options = {"prefix": "shop", "expiry": 10, "capacity": 7, "symmetric_encryption_keys": [key]}
    with channel_layers(url=database_url, **options):
        assert the_layer().expiry == 10
        assert the_layer().capacity == 7
        assert await works(the_layer())


async def test_channel_capacity_is_given_by_patterns(database_url: str) -> None:
    with channel_layers(url=database_url, capacity=5, channel_capacity={"http.*": 9}):
        assert the_layer().get_capacity("http.request") == 9
        assert the_layer().get_capacity("websocket.send") == 5
        assert await works(the_layer())


async def test_two_layers_of_the_settings_are_apart(database_url: str) -> None:
    backend = "pgchannels.django.PostgresChannelLayer"
    layers = {
        "default": {"BACKEND": backend, "CONFIG": {"url": database_url}},
        "other": {"BACKEND": backend, "CONFIG": {"url": database_url, "prefix": "other"}},
    }
    with override_settings(CHANNEL_LAYERS=layers):
        for name in layers:
            layer = get_channel_layer(name)
            assert isinstance(layer, PostgresChannelLayer)
            assert await works(layer)


@pytest.mark.parametrize(("config", "trouble"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
async def test_impossible_configuration_raises_one_error_that_names_the_trouble(
    config: dict[str, Any], trouble: str
) -> None:
    with channel_layers(**IMPATIENT | config), pytest.raises(ConfigurationError, match=f"(?is){trouble}"):
        await use_layer()


@pytest.mark.parametrize("engine", ["django.db.backends.sqlite3", "django.db.backends.mysql"])
async def test_alias_of_another_kind_of_database_is_refused(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    monkeypatch.setitem(settings.DATABASES, "other", {"ENGINE": engine, "NAME": "other"})
    trouble = engine.rpartition(".")[2]
    with channel_layers(database="other", **IMPATIENT), pytest.raises(ConfigurationError, match=trouble):
        await use_layer()


async def test_default_database_of_a_project_without_databases_is_refused() -> None:
    assert settings.DATABASES["default"]["ENGINE"] == "django.db.backends.dummy"
    with channel_layers(database="default", **IMPATIENT), pytest.raises(ConfigurationError, match=r"default|dummy"):
        await use_layer()


@pytest.mark.parametrize(
    "engine",
    [
        "django.db.backends.postgresql",
        "django.contrib.gis.db.backends.postgis",
        "django_prometheus.db.backends.postgresql",
    ],
)
def test_every_engine_on_postgresql_is_accepted(engine: str) -> None:
    with channel_layers(**POSTGRESQL | {"ENGINE": engine}):
        assert get_channel_layer()


@pytest.mark.parametrize("prefix", ["", "with space", "a" * 99, "größe", 5])
async def test_impossible_prefix_is_refused(prefix: object) -> None:
    config = POSTGRESQL | IMPATIENT | {"prefix": prefix}
    with channel_layers(**config), pytest.raises((ConfigurationError, InvalidName), match="prefix"):
        await use_layer()


@pytest.mark.parametrize(
    "config",
    [
        {"url": "postgresql://shop:hunter2@localhost/shop", "NAME": "shop"},
        {"url": "postgresql://shop:hunter2@localhost:port/shop"},
        {"url": "mysql://shop:hunter2@localhost/shop"},
        {**POSTGRESQL, "PASSWORD": "hunter2", "capasity": 5},
        {**POSTGRESQL, "PASSWORD": "hunter2", "ENGINE": "django.db.backends.mysql"},
        {**POSTGRESQL, "PASSWORD": "hunter2", "database": "default"},
        {"symmetric_encryption_keys": ["hunter2"]},
        {**POSTGRESQL, "symmetric_encryption_keys": "hunter2"},
    ],
    ids=lambda config: "+".join(config),
)
async def test_configuration_error_never_shows_a_password_or_a_key(config: dict[str, Any]) -> None:
    with channel_layers(**IMPATIENT | config), pytest.raises(ConfigurationError) as caught:
        await use_layer()
    error: BaseException | None = caught.value
    while error:
        assert "hunter2" not in str(error)
        error = error.__cause__


async def test_making_a_layer_does_not_connect() -> None:
    with channel_layers(**POSTGRESQL):
        layer = the_layer()
        await asyncio.sleep(0)
        await layer.close()


async def test_layer_follows_a_test_runner_that_renames_the_database(
    database_url: str, empty_database_url: str, add_database: AddDatabase
) -> None:
    add_database("shop", django_database(empty_database_url))
    with channel_layers(database="shop"):
        layer = the_layer()
        with pytest.raises(SchemaMissing):
            await use_layer()
        settings.DATABASES["shop"].update(django_database(database_url))
        assert await works(layer)
        await layer.close()
