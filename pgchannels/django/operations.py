"""Runs Alembic's revisions as Django migrations, on Django's own connection."""

from typing import Any

from django.apps import AppConfig
from django.db import connections, router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from pgchannels.database.migrations import downgrade_sql, upgrade_sql
from pgchannels.database.revision import REVISIONS
from pgchannels.django.changing import change_tables
from pgchannels.django.configured_layers import schemas_in


class UpgradeSchema(Operation):
    """Bring the schema from one Alembic revision to the next; does nothing if another command has already done so.

    Leaves alone databases that are not PostgreSQL, those where a router forbids it, and all of them if every layer has
    a database outside `DATABASES`.
    """

    reversible = True

    def __init__(self, from_revision: str, to_revision: str) -> None:
        self.from_revision = from_revision
        self.to_revision = to_revision

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Nothing: the models have operations of their own."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Upgrade."""
        for schema in _schemas(app_label, schema_editor):
            step = f"{self.from_revision}:{self.to_revision}"
            change_tables(schema_editor, schema, {self.from_revision: step}, upgrade_sql)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Downgrade; raises an error if that loses something, which names the command that may."""
        for schema in _schemas(app_label, schema_editor):
            step = f"{self.to_revision}:{self.from_revision}"
            change_tables(schema_editor, schema, {self.to_revision: step}, downgrade_sql)

    def describe(self) -> str:
        """What `migrate --plan` prints."""
        return f"Bring the tables of pgchannels to revision {self.to_revision}"


def upgrade_without_migrations(*, app_config: AppConfig, using: str, **_: Any) -> None:
    """Create the tables if migrations are disabled, as a project may do to create its test database faster."""
    if MigrationLoader.migrations_module(app_config.label)[0] is not None:
        return
    with connections[using].schema_editor() as schema_editor:
        for schema in _schemas(app_config.label, schema_editor):
            older = ("base", *REVISIONS[:-1])
            change_tables(schema_editor, schema, {found: f"{found}:head" for found in older}, upgrade_sql)


def _schemas(app_label: str, schema_editor: BaseDatabaseSchemaEditor) -> list[str]:
    connection = schema_editor.connection
    if connection.vendor != "postgresql" or not router.allow_migrate(connection.alias, app_label):
        return []
    return schemas_in(connection.alias)
