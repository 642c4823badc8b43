"""`pgchannels retention`: show or set how long the log keeps messages."""

import argparse
import asyncio
import os
import re
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection

from pgchannels.arguments import TEN_YEARS, refusal
from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from pgchannels.database.revision import version_query, version_table_query
from pgchannels.database.statements.nodes import retention, set_retention
from pgchannels.database.tables import Schema, schema_named
from pgchannels.errors import ConfigurationError, SchemaMissing
from pgchannels.names import DEFAULT_SCHEMA, require_valid_schema

_UNITS: Final = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_DURATION: Final = re.compile(rf"(?P<number>[0-9]{{1,9}}(?:\.[0-9]{{1,6}})?)\s*(?P<unit>{'|'.join(_UNITS)})")


def add_retention_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("retention", help="show or set how long the log keeps messages")
    parser.add_argument("duration", nargs="?", help="such as 90s, 30min, 1h or 2d; 0s for as long as layers need")
    parser.add_argument("--url", help="postgresql://user:password@host/name; by default PGCHANNELS_URL")
    parser.add_argument("--schema", default=DEFAULT_SCHEMA, help="the schema of the tables, by default %(default)s")
    parser.set_defaults(run=_retention)


def duration_of(text: str) -> timedelta:
    """Read a duration such as `90s`, `30min`, `1h` or `2d`.

    :raises ConfigurationError: the text is anything else, or longer than ten years.
    """
    read = _DURATION.fullmatch(text.strip())
    seconds = float(read["number"]) * _UNITS[read["unit"]] if read else None
    if seconds is None or seconds > TEN_YEARS:
        raise refusal("the retention", text, "a number with a unit, such as 90s, 30min, 1h or 2d, at most 3650d")
    return timedelta(seconds=seconds)


def in_units(duration: timedelta) -> str:
    """Return a duration as `duration_of` reads it."""
    seconds = duration.total_seconds()
    name, size = next(((name, size) for name, size in _UNITS.items() if seconds and seconds % size == 0), ("s", 1))
    return f"{seconds / size:g}{name}"


def _retention(arguments: argparse.Namespace) -> int:
    url = arguments.url or os.environ.get("PGCHANNELS_URL")
    if not url:
        raise ConfigurationError("give the database: `pgchannels retention --url …`, or set PGCHANNELS_URL")
    chosen = None if arguments.duration is None else duration_of(arguments.duration)
    database, schema = Database(url), schema_named(require_valid_schema(arguments.schema))
    kept, is_set_to, needed = asyncio.run(run_sync(database, lambda connection: _apply(connection, schema, chosen)))
    print(f"The log keeps messages for at least {in_units(kept)}.")
    print(f"set to          {in_units(is_set_to) if is_set_to else 'nothing: as long as layers need'}")
    print(f"layers need     {in_units(needed)}")
    return 0


def _apply(connection: Connection, schema: Schema, chosen: timedelta | None) -> tuple[timedelta, timedelta, timedelta]:
    is_there = connection.exec_driver_sql(version_table_query(schema.name)).scalar()
    if not is_there or connection.exec_driver_sql(version_query(schema.name)).scalar() is None:
        raise SchemaMissing(f"there are no pgchannels tables in the schema {schema.name!r}: run `pgchannels upgrade`")
    if chosen is not None:
        connection.execute(set_retention(schema, chosen))
    row: Any = connection.execute(retention(schema)).one()
    kept, is_set_to, needed = row
    return kept, is_set_to, needed
