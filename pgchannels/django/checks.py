"""What `manage.py check` finds: in the settings without connecting, in the databases that it is given."""

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.db import DEFAULT_DB_ALIAS, ProgrammingError, connections, router
from django.db.migrations.executor import MigrationExecutor

from pgchannels.database.database import Database
from pgchannels.database.revision import REVISIONS
from pgchannels.django.configured import OUR_PACKAGE, backend_of, configured_layers
from pgchannels.django.layer import PostgresChannelLayer
from pgchannels.django.revision import installed_revision
from pgchannels.errors import PgChannelsError
from pgchannels.names import DEFAULT_SCHEMA

TAG: Final = "pgchannels"
_APP_LABEL: Final = "pgchannels"
_LACKS_PRIVILEGE: Final = "42501"
_EXAMPLE: Final = (
    "CHANNEL_LAYERS = {'default': {'BACKEND': 'pgchannels.django.PostgresChannelLayer',"
    " 'CONFIG': {'database': 'default'}}}"
)


def register_checks() -> None:
    """Make them a part of `manage.py check`; doing so twice does no harm."""
    checks.register(check_layers, TAG)
    checks.register(check_tables, TAG, checks.Tags.database)


def check_layers(**_: Any) -> list[checks.CheckMessage]:
    """Whether the entries of `CHANNEL_LAYERS` that are ours can be used; nothing is connected to."""
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    if not isinstance(layers, Mapping):
        return [checks.Error("CHANNEL_LAYERS is no dict.", hint=f"Write it as {_EXAMPLE}.", id="pgchannels.E001")]
    found = [message for name, entry in layers.items() for message in _check_entry(name, entry)]
    return found or list(_check_use())


def check_tables(*, databases: Sequence[str] | None = None, **_: Any) -> list[checks.CheckMessage]:
    """Whether the tables of the layers that use these aliases are there, and not older than this version.

    No more than warnings: an error would keep `migrate` from mending it.
    """
    usable = [layer for layer in configured_layers() if not any(_check_config("", layer.backend, layer.config))]
    used = sorted({(layer.alias, layer.schema) for layer in usable if layer.alias in (databases or ())})
    return [message for alias, schema in used if alias for message in _check_schema(alias, schema)]


def _check_entry(name: str, entry: object) -> Iterator[checks.CheckMessage]:
    backend = backend_of(entry)
    if backend is not None and isinstance(entry, Mapping):
        configs = {"CONFIG": entry.get("CONFIG", {})}
        configs |= {"TEST_CONFIG": entry["TEST_CONFIG"]} if "TEST_CONFIG" in entry else {}
        for key, config in configs.items():
            yield from _check_config(f"CHANNEL_LAYERS[{name!r}][{key!r}]", backend, config)
    elif isinstance(entry, Mapping) and str(entry.get("BACKEND", "")).startswith(OUR_PACKAGE):
        yield checks.Error(
            f"CHANNEL_LAYERS[{name!r}]: there is no BACKEND {entry['BACKEND']!r}.",
            hint="It is called 'pgchannels.django.PostgresChannelLayer'.",
            id="pgchannels.E002",
        )


def _check_config(place: str, backend: type[PostgresChannelLayer], config: object) -> Iterator[checks.CheckMessage]:
    try:
        if not isinstance(config, Mapping):
            raise TypeError("it is no dict")
        Database(backend(**config).database_url())
    except (PgChannelsError, TypeError) as error:
        trouble = str(error).removeprefix("CHANNEL_LAYERS: ")
        yield checks.Error(f"{place}: {trouble}.", hint=_hint(config), id="pgchannels.E003")


def _hint(config: object) -> str:
    known = inspect.signature(PostgresChannelLayer).parameters.keys() - {"database_keys"}
    for option in config if isinstance(config, Mapping) else ():
        if option not in known and (similar := get_close_matches(str(option), known, n=1, cutoff=0.75)):
            return f"Did you mean {similar[0]!r}?"
    return f"Correct this entry. The shortest that works: {_EXAMPLE}."


def _check_use() -> Iterator[checks.CheckMessage]:
    if not any(configured_layers()):
        yield checks.Warning(
            "'pgchannels.django' is in INSTALLED_APPS, but no entry of CHANNEL_LAYERS uses it.",
            hint=f"Add {_EXAMPLE}. Where only MessageLayer is used, silence this in SILENCED_SYSTEM_CHECKS.",
            id="pgchannels.W001",
        )
    elif not apps.is_installed("pgchannels.django"):
        yield checks.Warning(
            "CHANNEL_LAYERS uses pgchannels, but 'pgchannels.django' is not in INSTALLED_APPS:"
            " `manage.py migrate` does not create its tables.",
            hint="Add it. Where `pgchannels upgrade` creates them, silence this in SILENCED_SYSTEM_CHECKS.",
            id="pgchannels.W002",
        )


def _check_schema(alias: str, schema: str) -> Iterator[checks.CheckMessage]:
    place = f"in the schema {schema!r} of the database {alias!r}"
    try:
        revision = installed_revision(connections[alias], schema)
    except ProgrammingError as error:
        if getattr(error.__cause__, "sqlstate", None) != _LACKS_PRIVILEGE:
            raise
        hint = "Let its owner run `pgchannels upgrade --grant-to ROLE` with the USER of this database."
        yield checks.Warning(f"The USER may not read the tables {place}.", hint=hint, id="pgchannels.W005")
        return
    if revision is None:
        yield from _warning("W003", f"There are no tables {place}.", alias, schema)
    elif revision in REVISIONS[:-1]:
        text = f"The tables {place} are at revision {revision}, this version of pgchannels needs {REVISIONS[-1]}."
        yield from _warning("W004", text, alias, schema)


def _warning(number: str, text: str, alias: str, schema: str) -> Iterator[checks.CheckMessage]:
    """A warning with the command that mends what it tells; none while just that command runs."""
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
    schema_option = "" if schema == DEFAULT_SCHEMA else f" --schema {schema}"
    command = f"manage.py pgchannels upgrade{database}{schema_option}"
    if _migrate_would_help(alias):
        if sys.argv[1:2] == ["migrate"]:
            return
        command = f"manage.py migrate{database}"
    yield checks.Warning(text, hint=f"`{command}` creates or upgrades them.", id=f"pgchannels.{number}")


def _migrate_would_help(alias: str) -> bool:
    if not apps.is_installed("pgchannels.django") or not router.allow_migrate(alias, _APP_LABEL):
        return False
    executor = MigrationExecutor(connections[alias])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes(_APP_LABEL)))
