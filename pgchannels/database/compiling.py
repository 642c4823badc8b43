"""Compiles SQLAlchemy statements for the driver."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.dialects import registry
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from pgchannels.database.tables import Schema


@lru_cache(maxsize=1024)
def driver_text(build: Callable[[Schema], ClauseElement], schema: Schema) -> str:
    """Return the SQL of a statement for the driver, with parameters `$1` … in order of appearance.

    Compiling takes a millisecond: it is done on first use, once for all nodes of the process.
    """
    return str(build(schema).compile(dialect=registry.load("postgresql.asyncpg")()))


def compiled(statement: Executable) -> tuple[Any, ...]:
    """Return the SQL of a statement as `driver_text` does, and its values."""
    assert isinstance(statement, ClauseElement)
    text = statement.compile(dialect=registry.load("postgresql.asyncpg")())
    assert isinstance(text, SQLCompiler)
    return str(text), *(text.params[name] for name in text.positiontup or ())
