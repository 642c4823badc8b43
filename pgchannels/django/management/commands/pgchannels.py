"""`manage.py pgchannels …`: the command line of the package, with the databases of the project."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections
from sqlalchemy import URL

from pgchannels.arguments import shown
from pgchannels.cli import CommandFailed, add_database_commands, ending_with_reader, run
from pgchannels.django.configured_layers import ConfiguredLayer, configured_layers, main_layer
from pgchannels.django.database_url import url_of_alias
from pgchannels.errors import PgChannelsError
from pgchannels.names import DEFAULT_SCHEMA

_ON_EACH_SERVER: Final = frozenset({"upgrade", "downgrade", "retention", "status", "durability"})


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a command works; the name of the server is empty for the only database of a layer."""

    url: Callable[[], str | URL]
    schema: str
    server: str = ""


class Command(BaseCommand):
    """Hands everything to the commands of `pgchannels.cli`; these have three more options here."""

    help = (
        "The commands of pgchannels, with the project's database: that of its channel layer. If the layer has several"
        " servers, upgrade, downgrade, retention, status and durability work on each of them, or on the one that"
        " --server names; the other commands, and status --json, need --server."
    )
    requires_system_checks = ()  # they would complain about the tables that a command is about to create

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the commands."""
        commands = parser.add_subparsers(required=True, metavar="COMMAND")
        add_database_commands(commands)
        for name, command in commands.choices.items():
            command.add_argument("--database", metavar="ALIAS", help="an alias of DATABASES, in place of --url")
            command.add_argument("--layer", metavar="NAME", help="an entry of CHANNEL_LAYERS, in place of the main one")
            without = "each of them" if name in _ON_EACH_SERVER else "an error"
            command.add_argument("--server", metavar="NAME", help=f"one of the layer's servers; without it, {without}")
            command.set_defaults(schema=None, is_for_each=name in _ON_EACH_SERVER)

    def handle(self, *_: Any, **options: Any) -> None:
        """Run one of them; a server that fails does not keep it from the others."""
        with ending_with_reader():
            self._handle(options)

    def _handle(self, options: Mapping[str, Any]) -> None:
        [first, *others] = places = _places(options)
        if not others:
            _run(first, options)
            return
        if not options["is_for_each"] or options.get("json"):
            raise CommandError(f"the layer has several servers: choose one with --server: {_names(places)}")
        failures: list[str] = []
        for place in places:
            self.stdout.write(f"server {place.server}:")
            try:
                _run(place, options)
            except CommandError as failure:
                failures.append(f"server {place.server}: {failure}")
        if failures:
            raise CommandError("\n".join(failures))


def _run(place: _Place, options: Mapping[str, Any]) -> None:
    try:
        status = run(Namespace(**{**options, "url": place.url(), "schema": options["schema"] or place.schema}))
    except (CommandFailed, PgChannelsError) as failure:
        raise CommandError(str(failure)) from failure
    if status:
        raise CommandError("the command failed", returncode=status)


def _places(options: Mapping[str, Any]) -> list[_Place]:
    """The servers of a layer, or the one database that the options choose."""
    url, alias, server = options["url"] or None, options["database"], options["server"]
    if server is not None and (url, alias) != (None, None):
        raise CommandError("--server chooses a server of a layer: leave out --database and --url")
    layer = _layer(alias, options["layer"])
    if layer is None or alias is not None:
        places = [_Place(lambda: url_of_alias(alias or DEFAULT_DB_ALIAS), _schema(alias))]
    else:
        entries = (entry for entry in configured_layers() if entry.name == layer.name)
        places = [_Place(entry.url, entry.schema, entry.server) for entry in entries]
    if url is not None:
        return [_Place(lambda: url, places[0].schema)]
    return places if server is None else [_one(server, places)]


def _layer(alias: str | None, name: str | None) -> ConfiguredLayer | None:
    """The chosen layer, or the main one."""
    if alias is not None and name is not None:
        raise CommandError("give --database or --layer, not both")
    if alias is not None and alias not in connections.settings:
        raise CommandError(f"{shown(alias)} is no alias of DATABASES")
    layers = {layer.name: layer for layer in configured_layers()}
    if name is not None and name not in layers:
        raise CommandError(f"{name!r} is no entry of CHANNEL_LAYERS that uses pgchannels")
    return main_layer() if name is None else layers[name]


def _schema(alias: str | None) -> str:
    """That of the main layer, if it uses the alias, or else of the first one that does."""
    layers = (main_layer(), *configured_layers())
    return next((layer.schema for layer in layers if layer is not None and layer.alias == alias), DEFAULT_SCHEMA)


def _one(server: str, places: list[_Place]) -> _Place:
    for place in places:
        if place.server == server:
            return place
    raise CommandError(f"the layer has no server {shown(server)}: {_names(places) or 'it has one database'}")


def _names(places: list[_Place]) -> str:
    return ", ".join(place.server for place in places if place.server)
