"""System checks: of the settings, without connecting, and of the databases that `manage.py check` is given."""

import asyncio
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from itertools import groupby
from typing import Any, Final

import asyncpg
from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections
from django.db.migrations.executor import MigrationExecutor

from pgchannels.arguments import redacted
from pgchannels.database.database import Database
from pgchannels.database.failures import is_database_failure
from pgchannels.database.revision import REVISIONS
from pgchannels.database.url import EXAMPLE_URL
from pgchannels.database.wording import in_words
from pgchannels.django.configured_layers import OUR_PACKAGE, ConfiguredLayer, backend_of, configured_layers
from pgchannels.django.layer import PostgresChannelLayer
from pgchannels.django.revision import installed_revision, revision_at
from pgchannels.django.upgrading import APP, APP_LABEL, migrate_command, upgrade_command
from pgchannels.errors import PgChannelsError
from pgchannels.servers.targets import require_different

TAG: Final = "pgchannels"
_LACKS_PRIVILEGE: Final = "42501"
_CONFIG_WITH_URL: Final = "'CONFIG': {'url': 'postgresql://user:password@host/name'}"
_EXAMPLE: Final = (
    "CHANNEL_LAYERS = {'default': {'BACKEND': 'pgchannels.django.PostgresChannelLayer',"
    " 'CONFIG': {'database': 'default'}}}"
)


def register_checks() -> None:
    """Register the checks; doing so twice is harmless."""
    checks.register(check_layers, TAG)
    checks.register(check_tables, checks.Tags.database)  # alone: Django 6.1 gives checks chosen by tag all databases


def check_layers(**_: Any) -> list[checks.CheckMessage]:
    """Check that our entries in `CHANNEL_LAYERS` can be used, without connecting."""
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    if not isinstance(layers, Mapping):
        return [checks.Error("CHANNEL_LAYERS is no dict.", hint=f"Write it as {_EXAMPLE}.", id="pgchannels.E001")]
    found = [message for name, entry in layers.items() for message in _check_entry(name, entry)]
    return found or [*_check_use(), *_check_using()]


def check_tables(*, databases: Sequence[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Check that the tables of the layers on these aliases exist, and are not older than this version.

    If any database is asked for, layers whose database is not in `DATABASES` are checked, too. Gives only warnings: an
    error would keep `migrate` from fixing it.
    """
    usable = [layer for layer in configured_layers() if not any(_check_config("", layer.backend, layer.config))]
    asked_for = [layer for layer in usable if databases and layer.alias in (None, *databases)]
    by_place = {(layer.alias or (layer.name, layer.server), layer.schema): layer for layer in reversed(asked_for)}
    return [message for layer in reversed(by_place.values()) for message in _check_schema(layer)]


def _check_entry(name: str, entry: object) -> Iterator[checks.CheckMessage]:
    backend = backend_of(entry)
    if backend is not None and isinstance(entry, Mapping):
        configs = {"CONFIG": entry.get("CONFIG", {})}
        configs |= {"TEST_CONFIG": entry["TEST_CONFIG"]} if "TEST_CONFIG" in entry else {}
        for key, config in configs.items():
            yield from _check_config(f"CHANNEL_LAYERS[{name!r}][{key!r}]", backend, config)
    elif not isinstance(entry, Mapping) or not isinstance(entry.get("BACKEND"), str):
        yield checks.Error(
            f"CHANNEL_LAYERS[{name!r}] is no dict with a BACKEND.", hint=f"Write {_EXAMPLE}.", id="pgchannels.E002"
        )
    elif str(entry["BACKEND"]).startswith(OUR_PACKAGE):
        yield checks.Error(
            f"CHANNEL_LAYERS[{name!r}]: there is no BACKEND {entry['BACKEND']!r}.",
            hint="It is called 'pgchannels.django.PostgresChannelLayer'.",
            id="pgchannels.E002",
        )


def _check_config(place: str, backend: type[PostgresChannelLayer], config: object) -> Iterator[checks.CheckMessage]:
    try:
        if not isinstance(config, Mapping):
            raise TypeError("it is no dict")
        require_different({name: Database(url) for name, url in backend(**config).database_urls().items()})
    except Exception as error:  # also from a module that `default` names, or from Django's backend
        is_ours = isinstance(error, PgChannelsError | TypeError)
        text = str(error).removeprefix("CHANNEL_LAYERS: ") if is_ours else f"{type(error).__name__}: {error}"
        trouble = redacted(text).replace(redacted(EXAMPLE_URL), EXAMPLE_URL)  # its password is an example, too
        yield checks.Error(f"{place}: {trouble}.", hint=_hint(config), id="pgchannels.E003")


def _hint(config: object) -> str:
    known = inspect.signature(PostgresChannelLayer).parameters.keys() - {"database_keys"}
    for option in config if isinstance(config, Mapping) else ():
        if option not in known and (similar := get_close_matches(str(option), known, n=1, cutoff=0.75)):
            return f"Did you mean {similar[0]!r}?"
    usable = [alias for alias in connections.settings if _is_usable(alias)]
    named = config.get("database") if isinstance(config, Mapping) else None
    if named in usable:
        return f"The database {named!r} can be used: correct or remove the other options of this entry."
    if isinstance(named, str) and named in connections.settings:
        mend = f"Correct DATABASES[{named!r}], or name another database here: "
    else:
        mend = "Correct this entry. The shortest that works: "
    return f"{mend}'CONFIG': {{'database': {usable[0]!r}}}." if usable else f"{mend}{_CONFIG_WITH_URL}."


def _is_usable(alias: str) -> bool:
    try:
        Database(PostgresChannelLayer(database=alias).database_url())
    except Exception:  # whatever its settings are
        return False
    return True


def _check_use() -> Iterator[checks.CheckMessage]:
    if not any(configured_layers()):
        yield checks.Warning(
            "'pgchannels.django' is in INSTALLED_APPS, but no entry of CHANNEL_LAYERS uses it.",
            hint=f"Add {_EXAMPLE}. Where only MessageLayer is used, silence this in SILENCED_SYSTEM_CHECKS.",
            id="pgchannels.W001",
        )
    elif not apps.is_installed(APP):
        yield checks.Warning(
            "CHANNEL_LAYERS uses pgchannels, but 'pgchannels.django' is not in INSTALLED_APPS:"
            " `manage.py migrate` does not create its tables.",
            hint="Add it. Where `pgchannels upgrade` creates them, silence this in SILENCED_SYSTEM_CHECKS.",
            id="pgchannels.W002",
        )


def _check_using() -> Iterator[checks.CheckMessage]:
    for name, of_entry in groupby(configured_layers(), key=lambda layer: layer.name):
        servers = [layer for layer in of_entry if layer.server]
        using = servers[0].config.get("using") if servers else None
        if using is not None and not any(layer.is_at(using) for layer in servers):
            yield checks.Warning(
                f"CHANNEL_LAYERS[{name!r}]: 'using' is {using!r}, which is none of the layer's servers:"
                " sends inside its transactions are refused.",
                hint="Name the alias of one of them. If it leads there by another address, silence this in"
                " SILENCED_SYSTEM_CHECKS.",
                id="pgchannels.W007",
            )


def _check_schema(layer: ConfiguredLayer) -> Iterator[checks.CheckMessage]:
    place = f"in the schema {layer.schema!r} of {_database(layer)}"
    try:
        revision = _revision(layer)
    except _NotAllowed:
        hint = "Let its owner run `pgchannels upgrade --grant-to ROLE` with the USER of this database."
        yield checks.Warning(f"The USER may not read the tables {place}.", hint=hint, id="pgchannels.W005")
    except _OutOfReach as error:
        hint = "The layer connects by itself: mend its CONFIG, or start the server."
        yield checks.Warning(f"Cannot look for the tables {place}: {error}.", hint=hint, id="pgchannels.W006")
    else:
        if revision is None:
            yield from _warning("W003", f"There are no tables {place}.", layer)
        elif revision in REVISIONS[:-1]:
            text = f"The tables {place} are at revision {revision}, this version of pgchannels needs {REVISIONS[-1]}."
            yield from _warning("W004", text, layer)


def _database(layer: ConfiguredLayer) -> str:
    if layer.alias is not None:
        return f"the database {layer.alias!r}"
    return f"the {f'server {layer.server!r}' if layer.server else 'database'} of the layer {layer.name!r}"


class _NotAllowed(Exception):
    pass


class _OutOfReach(Exception):
    pass


def _revision(layer: ConfiguredLayer) -> str | None:
    if layer.alias is None:
        return _revision_elsewhere(layer)
    try:
        return installed_revision(connections[layer.alias], layer.schema)
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", None) != _LACKS_PRIVILEGE:
            raise
        raise _NotAllowed from error


def _revision_elsewhere(layer: ConfiguredLayer) -> str | None:
    try:
        with ThreadPoolExecutor(1) as thread:  # where no event loop runs
            return thread.submit(asyncio.run, revision_at(layer.url(), layer.schema)).result()
    except asyncpg.InsufficientPrivilegeError as error:
        raise _NotAllowed from error
    except Exception as error:
        if not is_database_failure(error):
            raise
        raise _OutOfReach(in_words(error)) from error


def _warning(number: str, text: str, layer: ConfiguredLayer) -> Iterator[checks.CheckMessage]:
    """A warning with the command that fixes it; none while that very command runs."""
    command = upgrade_command(layer)
    if (migrate := migrate_command(layer)) is not None and _migrate_would_help(layer.alias):
        if sys.argv[1:2] == ["migrate"]:
            return
        command = migrate
    yield checks.Warning(text, hint=f"`{command}` creates or upgrades them.", id=f"pgchannels.{number}")


def _migrate_would_help(alias: str | None) -> bool:
    executor = MigrationExecutor(connections[alias or DEFAULT_DB_ALIAS])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes(APP_LABEL)))
