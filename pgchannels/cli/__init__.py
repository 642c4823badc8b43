"""The command line."""

import argparse
import sys
from collections.abc import Sequence

import asyncpg
from sqlalchemy.exc import DBAPIError

from pgchannels.cli.demo import add_demo_command
from pgchannels.cli.upgrade import add_upgrade_command
from pgchannels.errors import PgChannelsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, and says on standard error what went wrong."""
    parser = argparse.ArgumentParser(prog="pgchannels", description="A message layer in your PostgreSQL.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_demo_command(commands)
    add_upgrade_command(commands)
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except PgChannelsError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"cannot reach the database: {error}")
    except (DBAPIError, asyncpg.PostgresError) as error:
        return _fail(f"the database refused: {getattr(error, 'orig', None) or error}")
    return status


def _fail(text: str) -> int:
    print(f"pgchannels: {text}", file=sys.stderr)
    return 1
