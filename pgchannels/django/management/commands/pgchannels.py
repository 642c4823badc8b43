"""`manage.py pgchannels …`: the command line of the package, with the database of the project."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections
from sqlalchemy import URL

from pgchannels.arguments import shown
from pgchannels.cli import CommandFailed, add_database_commands, ending_with_reader, run
from pgchannels.django.configured_layers import configured_layers, main_layer
from pgchannels.django.database_url import url_of_alias
from pgchannels.errors import PgChannelsError
from pgchannels.names import DEFAULT_SCHEMA


class Command(BaseCommand):
    """Hands everything to the commands of `pgchannels.cli`; these have two more options here."""

    help = "The commands of pgchannels, with the project's database: that of its channel layer."
    requires_system_checks = ()  # they would complain about the tables that a command is about to create

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the commands."""
        commands = parser.add_subparsers(required=True, metavar="COMMAND")
        add_database_commands(commands)
        for command in dict.fromkeys(commands.choices.values()):
            command.add_argument("--database", metavar="ALIAS", help="an alias of DATABASES, in place of --url")
            command.add_argument("--layer", metavar="NAME", help="an entry of CHANNEL_LAYERS, in place of the main one")
            command.set_defaults(schema=None)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run one of them."""
        try:
            url, schema = _place(options["database"], options["layer"])
            given = {"url": options["url"] or url(), "schema": options["schema"] or schema}
            with ending_with_reader():
                status = run(Namespace(**options | given))
        except (CommandFailed, PgChannelsError) as failure:
            raise CommandError(str(failure)) from failure
        if status:
            raise CommandError("the command failed", returncode=status)


def _place(alias: str | None, layer_name: str | None) -> tuple[Callable[[], str | URL], str]:
    """A function for the URL, and the schema: of the chosen layer, of an alias, or of the main layer."""
    if alias is not None and layer_name is not None:
        raise CommandError("give --database or --layer, not both")
    if alias is not None and alias not in connections.settings:
        raise CommandError(f"{shown(alias)} is no alias of DATABASES")
    layers = {layer.name: layer for layer in reversed(list(configured_layers()))}
    if layer_name is not None and layer_name not in layers:
        raise CommandError(f"{layer_name!r} is no entry of CHANNEL_LAYERS that uses pgchannels")
    layer = main_layer() if layer_name is None else layers[layer_name]
    if layer is not None and alias is None:
        return layer.url, layer.schema
    using = [entry.schema for entry in (layer, *layers.values()) if entry is not None and entry.alias == alias]
    schema = next(iter(using), DEFAULT_SCHEMA)
    return lambda: url_of_alias(alias or DEFAULT_DB_ALIAS), schema
