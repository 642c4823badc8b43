"""Publishes the changes of a model's rows, by a trigger that `makemigrations` and `migrate` look after."""

from collections.abc import Sequence
from typing import Any

from django.db import models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from pgchannels.database import row_changes
from pgchannels.django.revision import installed_revision
from pgchannels.errors import ConfigurationError
from pgchannels.names import DEFAULT_PREFIX, DEFAULT_SCHEMA


class PublishRowChanges(models.BaseConstraint):
    """An entry of `Meta.constraints`: each change of a row is published to a topic, or group, when it commits.

    ::

        class Order(models.Model):
            customer = models.ForeignKey(Customer, on_delete=models.CASCADE)

            class Meta:
                constraints = [PublishRowChanges(topic="orders.{customer_id}", name="orders_live")]

    The migration that adds it depends on the tables of pgchannels: add `("pgchannels", "0001_log")` to its
    `dependencies`. Databases that are not PostgreSQL are left alone.

    :param topic: `{column}` stands for the value of a column, by its name in the database.
    :param name: of the trigger.
    :param without: columns to leave out.
    :param prefix: of the layers that receive.
    :param schema: of pgchannels' tables.
    """

    def __init__(
        self,
        *,
        topic: str,
        name: str,
        without: Sequence[str] = (),
        prefix: str = DEFAULT_PREFIX,
        schema: str = DEFAULT_SCHEMA,
    ) -> None:
        super().__init__(name=name)
        self.changes: row_changes.RowChanges = row_changes.RowChanges(
            topic=topic, without=tuple(without), prefix=prefix, name=name, schema=schema
        )

    def constraint_sql(self, model: type[models.Model] | None, schema_editor: BaseDatabaseSchemaEditor | None) -> str:
        """Nothing inside CREATE TABLE: the trigger is made behind it."""
        assert model is not None
        assert schema_editor is not None
        if statement := self.create_sql(model, schema_editor):
            schema_editor.deferred_sql.append(statement)
        return ""

    def create_sql(self, model: type[models.Model] | None, schema_editor: BaseDatabaseSchemaEditor | None) -> Any:
        """The statement that makes the trigger.

        :raises ConfigurationError: the database has no tables of pgchannels.
        """
        assert model is not None
        assert schema_editor is not None
        if schema_editor.connection.vendor != "postgresql":
            return None
        is_run = not schema_editor.collect_sql  # else it is only written, by sqlmigrate
        if is_run and installed_revision(schema_editor.connection, self.changes.schema) is None:
            raise ConfigurationError(
                f"{self.name} publishes changes, and the database has no pgchannels tables in the schema"
                f" {self.changes.schema!r} yet: put 'pgchannels.django' into INSTALLED_APPS, and"
                " ('pgchannels', '0001_log') into the dependencies of this migration"
            )
        return self.changes.start(schema_editor.quote_name(model._meta.db_table))

    def remove_sql(self, model: type[models.Model] | None, schema_editor: BaseDatabaseSchemaEditor | None) -> Any:
        """The statement that removes it."""
        assert model is not None
        assert schema_editor is not None
        if schema_editor.connection.vendor != "postgresql":
            return None
        table = schema_editor.quote_name(model._meta.db_table)
        return row_changes.stop(table, name=self.name, schema=self.changes.schema)

    def validate(self, *_: Any, **__: Any) -> None:
        """Every row is valid."""

    def deconstruct(self) -> Any:
        """Return how a migration writes it."""
        path, arguments, options = super().deconstruct()
        options |= {"topic": self.changes.topic}
        if self.changes.without:
            options["without"] = self.changes.without
        if self.changes.prefix != DEFAULT_PREFIX:
            options["prefix"] = self.changes.prefix
        if self.changes.schema != DEFAULT_SCHEMA:
            options["schema"] = self.changes.schema
        return path, arguments, options

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublishRowChanges) and self.deconstruct() == other.deconstruct()

    def __hash__(self) -> int:
        return hash((self.name, self.changes.topic))
