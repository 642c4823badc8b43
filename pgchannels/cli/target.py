"""Which database and schema a command works on."""

import argparse
import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from pgchannels.errors import ConfigurationError
from pgchannels.names import DEFAULT_SCHEMA

_URL_VARIABLE: Final = "PGCHANNELS_URL"
_LIMIT_WAITING: Final = "SET LOCAL lock_timeout = '5s'"  # others would wait behind us

CREATING_REMEDY: Final = "do it as a role that owns the schema, or may CREATE one"
_USING_REMEDY: Final = "do it as the role that owns the schema, or as one of `pgchannels upgrade --grant-to ROLE`"

T = TypeVar("T")


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the options for the database and the schema."""
    parser.add_argument("--url", help=f"postgresql://user:password@host/name; by default {_URL_VARIABLE}")
    parser.set_defaults(remedy=_USING_REMEDY)
    parser.add_argument("--schema", default=DEFAULT_SCHEMA, help="the schema of pgchannels, by default %(default)s")


def given_url(arguments: argparse.Namespace) -> Any:
    """Return the URL of the database, or the function that Django's command has put in its place; None without one."""
    return getattr(arguments, "url", None) or os.environ.get(_URL_VARIABLE)


def require_url(arguments: argparse.Namespace) -> Any:
    """Return what `given_url` does.

    :raises ConfigurationError: there is none.
    """
    if not (url := given_url(arguments)):
        raise ConfigurationError(f"give the database with --url postgresql://…, or set {_URL_VARIABLE}")
    return url


def in_transaction(arguments: argparse.Namespace, work: Callable[[Connection], T]) -> T:
    """Run a function in a transaction of the database, which waits for five seconds at most for each lock.

    :raises ConfigurationError: no database is given.
    """
    database = Database(require_url(arguments))

    def limited(connection: Connection) -> T:
        connection.exec_driver_sql(_LIMIT_WAITING)
        return work(connection)

    return asyncio.run(run_sync(database, limited))
