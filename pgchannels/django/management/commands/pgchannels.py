"""`manage.py pgchannels …`: the command line of the package, with the database of the project."""

from argparse import Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from sqlalchemy import URL

from pgchannels.cli import CommandFailed, add_database_commands, run
from pgchannels.django.configuration import url_of_alias
from pgchannels.django.configured import main_layer, schemas_of
from pgchannels.errors import PgChannelsError
from pgchannels.names import DEFAULT_SCHEMA


class Command(BaseCommand):
    """Hands everything to the commands of `pgchannels.cli`; these have one more option here, `--database`."""

    help = "The commands of pgchannels, with the project's database: that of its channel layer."
    requires_system_checks = ()  # they would complain of the tables that a command is to make

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the commands."""
        commands = parser.add_subparsers(required=True, metavar="COMMAND")
        add_database_commands(commands)
        for command in dict.fromkeys(commands.choices.values()):
            command.add_argument("--database", metavar="ALIAS", help="an alias of DATABASES, in place of --url")
            command.set_defaults(schema=None)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run one of them."""
        try:
            url = options["url"] or _url(options["database"])
            status = run(
                Namespace(**options | {"url": url, "schema": options["schema"] or _schema(options["database"])})
            )
        except (CommandFailed, PgChannelsError) as failure:
            raise CommandError(str(failure)) from failure
        if status:
            raise CommandError("the command failed", returncode=status)


def _url(alias: str | None) -> str | URL:
    if alias is not None and alias not in connections.settings:
        raise CommandError(f"{alias!r} is no alias of DATABASES")
    layer = main_layer()
    if alias is None and layer is not None:
        return layer.backend(**layer.config).database_url()
    return url_of_alias(alias or "default")


def _schema(alias: str | None) -> str:
    layer = main_layer()
    if layer is not None and alias in (None, layer.alias):
        return layer.schema
    return next(iter(schemas_of(alias or "")), DEFAULT_SCHEMA)
