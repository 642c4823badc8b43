"""The databases in the settings of a layer: one, or one for each server."""

from collections.abc import Hashable, Mapping
from typing import Any

from sqlalchemy import URL

from pgchannels.django.database_url import DatabaseSource, sources_of_servers
from pgchannels.errors import ConfigurationError
from pgchannels.options import Options
from pgchannels.process.process import Process
from pgchannels.servers.engine import Engine, require_one_server
from pgchannels.servers.placement import Pins, Placement
from pgchannels.servers.servers import Servers
from pgchannels.servers.targets import ServerTargets, require_different, require_no_listen_url


class ServersInSettings:
    """Where they are, as far as the settings say so now: a test runner renames databases.

    :param only: the database of a layer that has one.
    :param given: the settings of one database, which do not go with several.
    :raises ConfigurationError: the settings contradict each other, or name no database.
    """

    def __init__(
        self,
        only: DatabaseSource | None,
        *,
        given: Mapping[str, object],
        databases: Any,
        urls: ServerTargets | None,
        pinned: Pins | None,
        also_receive_from: ServerTargets | None,
        also_pinned: Pins | None,
        listen_url: str | URL | None,
    ) -> None:
        self._placement: Placement | None = None
        if only is not None:
            require_one_server(pinned=pinned, also_receive_from=also_receive_from, also_pinned=also_pinned)
            self._sources = {"": only}
            return
        option, servers = ("databases", databases) if databases is not None else ("urls", urls)
        given = {**given, "urls": urls} if option == "databases" else given
        if too_many := [name for name, value in given.items() if value is not None]:
            raise ConfigurationError(f"CHANNEL_LAYERS: CONFIG has {option!r} and {too_many[0]!r}: leave one out")
        require_no_listen_url(listen_url)
        sources = sources_of_servers(option, servers)
        also = {} if also_receive_from is None else sources_of_servers(option, also_receive_from)
        self._placement = Placement(tuple(sources), also=tuple(also), pinned=pinned, also_pinned=also_pinned)
        self._sources = {**also, **sources}

    def key(self) -> Hashable:
        """Return a value that stays the same for as long as the databases do."""
        return tuple(source.key() for source in self._sources.values())

    def urls(self) -> dict[str, str | URL]:
        """Return where each is, by the name of its server; the first is the one that stands first in the settings."""
        names = self._placement.names if self._placement is not None else self._sources
        return {name: self._sources[name].url() for name in names}

    def engine(self, options: Options, *, idle_seconds: float | None) -> Engine:
        """Return what the layer runs on."""
        if self._placement is None:
            return Process(self._sources[""].open(""), options, idle_seconds=idle_seconds)
        databases = {name: source.open(name) for name, source in self._sources.items()}
        require_different(databases)
        return Servers(databases, options, self._placement, idle_seconds=idle_seconds)
