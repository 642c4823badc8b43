"""The command line."""

import argparse
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

from pgchannels import __version__
from pgchannels.arguments import redacted
from pgchannels.cli.bench import add_bench_command
from pgchannels.cli.demo import add_demo_command
from pgchannels.cli.durability import add_durability_command
from pgchannels.cli.retention import add_retention_command
from pgchannels.cli.status import add_status_command
from pgchannels.cli.target import CREATING_REMEDY, given_url
from pgchannels.cli.upgrade import add_downgrade_command, add_upgrade_command
from pgchannels.cli.watch import add_watch_commands
from pgchannels.database.database import Database
from pgchannels.database.failures import is_database_failure, lacks_privilege, of_driver
from pgchannels.database.wording import Place, explained, in_words
from pgchannels.errors import PgChannelsError

_READER_GONE: Final = 141  # what a shell shows for a program that SIGPIPE has ended


class CommandFailed(PgChannelsError):
    """A command could not do what it should; the text says why."""


class _Parser(argparse.ArgumentParser):
    """Shows no password, even if a URL is in the wrong place."""

    def error(self, message: str) -> NoReturn:
        super().error(redacted(message))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, and reports failures on standard error."""
    parser: argparse.ArgumentParser = _Parser(prog="pgchannels", description="A message layer in your PostgreSQL.")
    parser.add_argument("--version", action="version", version=f"pgchannels {__version__}")
    parser.set_defaults(run=lambda _: _print_help(parser), remedy=CREATING_REMEDY)
    commands = parser.add_subparsers(metavar="COMMAND")
    add_demo_command(commands)
    add_database_commands(commands)
    with ending_with_reader():
        try:
            return run(parser.parse_args(arguments))
        except CommandFailed as failure:
            print(f"pgchannels: {failure}", file=sys.stderr)
            return 1


def add_database_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands that work on a database, which is given by `--url`."""
    add_upgrade_command(commands)
    add_downgrade_command(commands)
    add_watch_commands(commands)
    add_bench_command(commands)
    add_retention_command(commands)
    add_status_command(commands)
    add_durability_command(commands)


def run(parsed: argparse.Namespace) -> int:
    """Run the command that was parsed; returns the exit status.

    :raises CommandFailed: for every failure that is not a defect of the command.
    """
    try:
        status: int = parsed.run(parsed)
    except PgChannelsError as error:
        raise CommandFailed(str(error)) from error
    except Exception as error:
        if not is_database_failure(error) or _lost_reader(error):
            raise
        if lacks_privilege(error):
            raise CommandFailed(f"{_place(parsed)} refused: {in_words(error)}; {parsed.remedy}") from error
        raise CommandFailed(f"{explained(error, _place(parsed))}{_hint_of_server(error)}") from error
    return status


def _hint_of_server(error: Exception) -> str:
    hint = getattr(of_driver(error), "hint", None)
    return f". {hint}" if hint else ""


@contextmanager
def ending_with_reader() -> Iterator[None]:
    """End the program without a word if nobody reads the standard output any more, as after `| head -1`."""
    try:
        try:
            yield
        finally:
            print(end="", flush=True)
    except BrokenPipeError as error:
        if not _lost_reader(error):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left as it ends
        raise SystemExit(_READER_GONE) from None


def _lost_reader(error: Exception) -> bool:
    """Whether it is the reader of the standard output that has gone; a database's connection can break as well."""
    if not isinstance(error, BrokenPipeError):
        return False
    output = select.poll()
    output.register(sys.stdout, 0)  # errors and hang-ups alone
    return bool(output.poll(0))


def _print_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def _place(parsed: argparse.Namespace) -> Place:
    url = given_url(parsed)
    return Database(url).place if url else Place("", "")
