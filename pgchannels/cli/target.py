"""Which database and schema a command works on."""

import argparse
import asyncio
import os
from collections.abc import Callable
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from pgchannels.database.database import Database
from pgchannels.database.short_locks import Patience, with_short_locks
from pgchannels.errors import ConfigurationError
from pgchannels.names import DEFAULT_SCHEMA

_URL_VARIABLE: Final = "PGCHANNELS_URL"
_LONGEST_SECONDS: Final = 5.0

CREATING_REMEDY: Final = "do it as a role that owns the schema, or may CREATE one"
_USING_REMEDY: Final = "do it as the role that owns the schema, or as one of `pgchannels upgrade --grant-to ROLE`"

OWNING_REMEDY: Final = (
    "do it as the role that owns the table, and is one of `pgchannels upgrade --grant-publish-to ROLE` or `--grant-to`"
)

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
    """Run a function in a transaction of the database, again while somebody's lock is in the way, for five seconds.

    :raises ConfigurationError: no database is given.
    """
    return asyncio.run(with_short_locks(Database(require_url(arguments)), work, Patience(_LONGEST_SECONDS)))
