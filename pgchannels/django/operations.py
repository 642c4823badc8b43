"""Runs Alembic's revisions as Django migrations, on Django's own connection."""

from typing import Any

from django.conf import settings
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from pgchannels.database.migrations import downgrade_sql, upgrade_sql
from pgchannels.database.revision import upgrading_lock, version_query, version_table_query
from pgchannels.names import DEFAULT_SCHEMA


class UpgradeSchema(Operation):
    """Bring the schema from one Alembic revision to the next; nothing to do where another door was faster.

    Databases that are not PostgreSQL are left alone.
    """

    reversible = True

    def __init__(self, from_revision: str, to_revision: str) -> None:
        self.from_revision = from_revision
        self.to_revision = to_revision

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """There are no models."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Upgrade."""
        for schema in _schemas(schema_editor):
            if _revision(schema_editor, schema) == self.from_revision:
                schema_editor.execute(upgrade_sql(schema, f"{self.from_revision}:{self.to_revision}"), params=None)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        """Downgrade."""
        for schema in _schemas(schema_editor):
            if _revision(schema_editor, schema) == self.to_revision:
                schema_editor.execute(downgrade_sql(schema, f"{self.to_revision}:{self.from_revision}"), params=None)

    def describe(self) -> str:
        """What `migrate --plan` prints."""
        return f"Bring the tables of pgchannels to revision {self.to_revision}"


def _schemas(schema_editor: BaseDatabaseSchemaEditor) -> list[str]:
    if schema_editor.connection.vendor != "postgresql":
        return []
    layers = getattr(settings, "CHANNEL_LAYERS", {}).values()
    ours = [layer for layer in layers if layer.get("BACKEND", "").startswith("pgchannels.")]
    return sorted({layer.get("CONFIG", {}).get("schema", DEFAULT_SCHEMA) for layer in ours}) or [DEFAULT_SCHEMA]


def _revision(schema_editor: BaseDatabaseSchemaEditor, schema: str) -> str:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(upgrading_lock(schema))  # whoever came by another door may be half-way
        cursor.execute(version_table_query(schema))
        if not cursor.fetchone()[0]:
            return "base"
        cursor.execute(version_query(schema))
        row = cursor.fetchone()
        return str(row[0]) if row else "base"
