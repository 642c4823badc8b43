"""Statements of SQLAlchemy, as the driver takes them."""

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
    """The SQL of a statement as the driver takes it, parameters `$1` … in the order of their mention.

    To compile one takes a millisecond: it is done when it is first needed, once for all nodes of the process.
    """
    return str(build(schema).compile(dialect=registry.load("postgresql.asyncpg")()))


def compiled(statement: Executable) -> tuple[Any, ...]:
    """The SQL of a statement as of `driver_text`, and its values."""
    assert isinstance(statement, ClauseElement)
    text = statement.compile(dialect=registry.load("postgresql.asyncpg")())
    assert isinstance(text, SQLCompiler)
    return str(text), *(text.params[name] for name in text.positiontup or ())
