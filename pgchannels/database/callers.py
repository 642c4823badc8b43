"""Calls our functions on connections of the application, of any driver, inside its transactions."""

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Select
from sqlalchemy.dialects import registry
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from pgchannels.arguments import refusal
from pgchannels.database.tables import Schema, schema_named


class AsyncExecutor(Protocol):
    """A connection or a session that runs statements and is awaited."""

    @property
    def execute(self) -> Callable[..., Awaitable[Any]]:
        """Run a statement."""


class Executor(Protocol):
    """A connection or a session that runs statements and blocks."""

    @property
    def execute(self) -> Callable[..., Any]:
        """Run a statement."""


class CursorMaker(Protocol):
    """A connection of Django."""

    @property
    def cursor(self) -> Callable[..., Any]:
        """Return a cursor."""


Build = Callable[[Schema], Select[Any]]

_ASYNCHRONOUS: Final = "an AsyncConnection or AsyncSession of SQLAlchemy, or a connection of asyncpg or psycopg"
_BLOCKING: Final = "a Connection or Session of SQLAlchemy, or a connection of psycopg or Django"


Call = Callable[[Build, str, Mapping[str, Any]], Any]
AsyncCall = Callable[[Build, str, Mapping[str, Any]], Awaitable[Any]]


def caller_of_async(connection: Any) -> AsyncCall:
    """Return what runs a statement, of a schema and with values, on a connection, and returns its one value.

    :raises ConfigurationError: the connection is of an unknown kind, or blocks.
    """
    if isinstance(connection, AsyncConnection | AsyncSession | async_scoped_session):
        return partial(_call_sqlalchemy_async, connection)
    if _is_of_asyncpg(connection):
        return partial(_call_asyncpg, connection)
    if _is_of_psycopg(connection, "AsyncConnection"):
        return partial(_call_psycopg_async, connection)
    raise refusal("connection", connection, f"{_ASYNCHRONOUS} (methods of `layer.sync` take one that blocks)")


def caller_of(connection: Any) -> Call:
    """As `caller_of_async`, for a connection that blocks.

    :raises ConfigurationError: the connection is of an unknown kind, or asynchronous.
    """
    if isinstance(connection, Connection | Session | scoped_session):
        return partial(_call_sqlalchemy, connection)
    if _is_of_django(connection):
        return partial(_call_django, connection)
    if _is_of_psycopg(connection, "Connection"):
        return partial(_call_psycopg, connection)
    raise refusal("connection", connection, _BLOCKING)


async def _call_sqlalchemy_async(connection: Any, build: Build, schema: str, values: Mapping[str, Any]) -> Any:
    return (await connection.execute(build(schema_named(schema)), values)).scalar_one()


async def _call_asyncpg(connection: Any, build: Build, schema: str, values: Mapping[str, Any]) -> Any:
    text, names = _text(build, schema, "asyncpg")
    return await connection.fetchval(text, *(values[name] for name in names))


async def _call_psycopg_async(connection: Any, build: Build, schema: str, values: Mapping[str, Any]) -> Any:
    async with import_module("psycopg").AsyncCursor(connection, row_factory=_as_tuple) as cursor:
        await cursor.execute(_text(build, schema, "psycopg")[0], values)
        return (await cursor.fetchone())[0]


def _call_sqlalchemy(connection: Any, build: Build, schema: str, values: Mapping[str, Any]) -> Any:
    return connection.execute(build(schema_named(schema)), values).scalar_one()


def _call_psycopg(connection: Any, build: Build, schema: str, values: Mapping[str, Any]) -> Any:
    with import_module("psycopg").Cursor(connection, row_factory=_as_tuple) as cursor:
        cursor.execute(_text(build, schema, "psycopg")[0], values)
        return cursor.fetchone()[0]


def _call_django(connection: Any, build: Build, schema: str, values: Mapping[str, Any]) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(_text(build, schema, "psycopg")[0], values)
        return cursor.fetchone()[0]


def sqlstate_of(error: BaseException) -> str | None:
    """Return the code of the server's error behind one of any driver, or of SQLAlchemy's or Django's."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(state := getattr(seen, "sqlstate", None), str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None


# By what they can do, not by their classes: applications wrap connections, to trace them for example.


def _is_of_asyncpg(connection: Any) -> bool:
    return callable(getattr(connection, "fetchval", None)) and callable(getattr(connection, "add_listener", None))


def _is_of_psycopg(connection: Any, kind: str) -> bool:
    return hasattr(connection, "pgconn") and any(base.__name__ == kind for base in connection.__class__.__mro__)


def _is_of_django(connection: Any) -> bool:
    return getattr(connection, "vendor", None) == "postgresql" and callable(getattr(connection, "cursor", None))


# Not the kinds of cursor and of row that the application has chosen.
def _as_tuple(_: object) -> Callable[[Any], Any]:
    """Build rows as psycopg does by default."""
    return tuple


@lru_cache(maxsize=64)
def _text(build: Build, schema: str, driver: str) -> tuple[str, tuple[str, ...]]:
    compiled: Any = build(schema_named(schema)).compile(dialect=registry.load(f"postgresql.{driver}")())
    return str(compiled), tuple(compiled.positiontup or ())
