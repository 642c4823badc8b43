"""Brings a database to a revision of the schema: the commands of pgchannels, Alembic and Django all use this."""

import asyncio
import io
import os
import re
from pathlib import Path
from typing import Any

from alembic import command, context
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.schema import CreateSchema

from pgchannels.database.database import SEARCH_PATH, Database
from pgchannels.database.foreign import other_tables_named
from pgchannels.database.losses import allow_losses, losses, require_no_losses
from pgchannels.database.revision import (
    VERSION_TABLE,
    require_tables,
    require_trusted,
    revisions_between,
    strange_owner_query,
)
from pgchannels.database.short_locks import LOCK_TIMEOUT, TIMEOUT_SECONDS, change_tables
from pgchannels.database.tables import Schema
from pgchannels.database.url import DatabaseTarget
from pgchannels.database.wording import raise_explained
from pgchannels.errors import ConfigurationError, PgChannelsError
from pgchannels.names import DEFAULT_SCHEMA, require_valid_schema

# What a script needs; the caller's connection gets its own settings back afterwards.
_SETTINGS = {"search_path": SEARCH_PATH, "default_tablespace": "", "lock_timeout": LOCK_TIMEOUT}
_PIN_SETTINGS = "".join(
    f"SELECT pg_catalog.set_config('pgchannels.{name}', pg_catalog.current_setting('{name}'), true);\n"
    f"SELECT pg_catalog.set_config('{name}', '{value}', true);\n"
    for name, value in _SETTINGS.items()
)
_RESTORE_SETTINGS = "".join(
    f"SELECT pg_catalog.set_config('{name}', pg_catalog.current_setting('pgchannels.{name}'), true);\n"
    for name in _SETTINGS
)
_SLOT_TABLE = re.compile(r"message_\d+")


async def upgrade(
    target: DatabaseTarget,
    *,
    schema: str = DEFAULT_SCHEMA,
    revision: str = "head",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> tuple[str | None, str | None]:
    """Create the schema and its tables, or bring them to a newer revision; do nothing if they are there.

    Layers may run meanwhile. Returns the revision before, None if the tables were missing, and the revision now.

    :raises ConfigurationError: the tables are at a revision that this version does not know, or the schema has others.
    :raises DatabaseUnavailable: others held locks that this needs for so long; nothing was changed.
    :raises sqlalchemy.exc.DBAPIError: the role may not create them; nothing was changed.
    """
    return await change_tables(
        Database(target),
        require_valid_schema(schema),
        lambda connection: _upgrade(connection, schema, revision),
        timeout_seconds=timeout_seconds,
    )


async def downgrade(
    target: DatabaseTarget,
    *,
    schema: str = DEFAULT_SCHEMA,
    revision: str = "base",
    may_lose: bool = False,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> tuple[str, list[str]]:
    """Go back to an older revision; `base` removes all tables and functions of the schema.

    Returns the revision before, and what was lost, in sentences.

    :raises ConfigurationError: there is no such revision, or something would be lost and may not be.
    :raises SchemaMissing: there are no tables.
    :raises DatabaseUnavailable: others held locks that this needs for so long; nothing was changed.
    """
    return await change_tables(
        Database(target),
        require_valid_schema(schema),
        lambda connection: _downgrade(connection, schema, revision, may_lose=may_lose),
        timeout_seconds=timeout_seconds,
    )


def upgrade_sql(schema: str, revisions: str) -> str:
    """Return the statements between two revisions, `from:to`, as one script for a connection outside SQLAlchemy."""
    return _offline_sql(command.upgrade, schema, revisions)


def downgrade_sql(schema: str, revisions: str) -> str:
    """Return the statements back from one revision to another, `from:to`, as one script."""
    script = _offline_sql(command.downgrade, schema, revisions)
    return script + _drop_version_table(schema) if revisions.endswith(":base") else script


def run_environment() -> None:
    """Do the work of `alembic/env.py`: run the revisions as a script, on the caller's connection or on its own."""
    attributes = context.config.attributes
    if "connection" in attributes:
        _run_on(attributes["connection"], attributes["schema"])
        return
    try:
        schema = attributes.setdefault("schema", _schema_from_outside())
        if context.is_offline_mode():
            _run_offline(schema)
        else:
            _run_on_own_connection(Database(_url_from_outside()), schema)
    except PgChannelsError as error:
        raise CommandError(str(error)) from error  # Alembic shows this in one line


def _upgrade(connection: Connection, schema: str, revision: str) -> tuple[str | None, str | None]:
    config = _config(schema, connection)
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise ConfigurationError(
            f"the tables in the schema {schema!r} cannot be upgraded: {error}. If a newer version of pgchannels has"
            " made them, install that here"
        ) from error
    return config.attributes["before"], config.attributes["after"]


def _downgrade(connection: Connection, schema: str, revision: str, *, may_lose: bool) -> tuple[str, list[str]]:
    _require_trusted_owner(connection, schema)
    before = require_tables(connection, schema)
    lost = losses(connection, _revisions_folder(), f'"{schema}"', revisions_between(before, revision))
    if not may_lose:
        require_no_losses(lost, revision)
    allow_losses(connection)
    command.downgrade(_config(schema, connection), revision)
    if revision == "base":
        connection.execute(text(_drop_version_table(schema)))
    return before, lost


def _run_offline(schema: str) -> None:
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        literal_binds=True,
        **_environment(schema),
    )
    with context.begin_transaction():
        context.execute(_create_schema(schema))
        context.run_migrations()


def _create_schema(schema: str) -> str:
    # IF NOT EXISTS needs the privilege to create a schema even if there is nothing to create.
    is_missing = f"NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = '{require_valid_schema(schema)}')"
    return f'DO $$ BEGIN IF {is_missing} THEN CREATE SCHEMA IF NOT EXISTS "{schema}"; END IF; END $$'


def _run_on(connection: Connection, schema: str) -> None:
    if not connection.dialect.has_schema(connection, schema):
        connection.execute(CreateSchema(schema, if_not_exists=True))
    _require_trusted_owner(connection, schema)
    context.configure(connection, **_environment(schema))
    with other_tables_named(schema), context.begin_transaction():
        attributes, migration = context.config.attributes, context.get_context()
        attributes["before"] = migration.get_current_revision()
        context.run_migrations()
        attributes["after"] = migration.get_current_revision()


def _require_trusted_owner(connection: Connection, schema: str) -> None:
    require_trusted(connection.execute(text(strange_owner_query(schema))).scalar(), schema)


def _run_on_own_connection(database: Database, schema: str) -> None:
    try:
        asyncio.run(change_tables(database, schema, lambda connection: _run_on(connection, schema)))
    except Exception as error:
        raise_explained(error, database.place)


def _environment(schema: str) -> dict[str, Any]:
    return {
        "target_metadata": Schema(schema).metadata,
        "version_table": VERSION_TABLE,
        "version_table_schema": schema,
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == schema,
        "include_object": lambda _, name, kind, *__: not (kind == "table" and _is_not_described(name)),
    }


def _is_not_described(table: str | None) -> bool:
    return table == VERSION_TABLE or (table is not None and _SLOT_TABLE.fullmatch(table) is not None)


def _config(schema: str, connection: Connection | None = None, *, output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(_revisions_folder()).replace("%", "%%"))
    config.attributes["schema"] = require_valid_schema(schema)
    if connection is not None:
        config.attributes["connection"] = connection
    return config


def _revisions_folder() -> Path:
    package = Path(__file__).parents[1]
    in_wheel = package / "_alembic"
    return in_wheel if in_wheel.is_dir() else package.parent / "alembic"


def _offline_sql(alembic_command: Any, schema: str, revisions: str) -> str:
    output = io.StringIO()
    alembic_command(_config(schema, output=output), revisions, sql=True)
    script = output.getvalue()
    # The caller's connection is in a transaction, or runs the whole script as one.
    return _PIN_SETTINGS + re.sub(r"^(BEGIN|COMMIT);$", "", script, flags=re.MULTILINE) + _RESTORE_SETTINGS


def _drop_version_table(schema: str) -> str:
    return f'DROP TABLE IF EXISTS "{schema}".{VERSION_TABLE};'  # older versions of Alembic have already dropped it


def _schema_from_outside() -> str:
    given = context.get_x_argument(as_dictionary=True).get("schema") or os.environ.get("PGCHANNELS_SCHEMA")
    return require_valid_schema(given or DEFAULT_SCHEMA)


def _url_from_outside() -> str:
    given = context.get_x_argument(as_dictionary=True).get("url") or os.environ.get("PGCHANNELS_URL")
    if not given:
        raise ConfigurationError("give the database as `alembic -x url=postgresql://… …` or in PGCHANNELS_URL")
    return str(given)
