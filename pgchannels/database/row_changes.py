"""Triggers that publish the changes of a table's rows: the command line, Alembic and Django all use this."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pgchannels.names import DEFAULT_PREFIX, DEFAULT_SCHEMA, require_valid_prefix, require_valid_schema

DEFAULT_TRIGGER: Final = "pgchannels_row_changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowChanges:
    """What is published of a table.

    :param topic: where changes go; `{column}` in it stands for a value of the row.
    :param without: columns to leave out.
    :param prefix: of the layers that receive.
    :param name: of the trigger.
    :param schema: of pgchannels' tables.
    """

    topic: str
    without: Sequence[str] = ()
    prefix: str = DEFAULT_PREFIX
    name: str = DEFAULT_TRIGGER
    schema: str = DEFAULT_SCHEMA

    def start(self, table: str) -> str:
        """Return the statement that begins to publish the changes of a table, which is named as in SQL."""
        columns = ", ".join(_text(column) for column in self.without)
        return (
            f"SELECT {_within(self.schema)}.publish_row_changes({_text(table)}::pg_catalog.regclass,"
            f" {_text(self.topic)}, ARRAY[{columns}]::pg_catalog.text[],"
            f" {_text(require_valid_prefix(self.prefix))}, {_text(self.name)})"
        )


def stop(table: str, *, name: str = DEFAULT_TRIGGER, schema: str = DEFAULT_SCHEMA) -> str:
    """Return the statement that ends it."""
    return f"SELECT {_within(schema)}.stop_row_changes({_text(table)}::pg_catalog.regclass, {_text(name)})"


def _within(schema: str) -> str:
    return f'"{require_valid_schema(schema)}"'


def _text(value: str) -> str:
    # E'': a backslash means the same whatever `standard_conforming_strings` is.
    quoted = value.replace("\\", "\\\\").replace("'", "''")
    return f"{'E' if chr(92) in value else ''}'{quoted}'"
