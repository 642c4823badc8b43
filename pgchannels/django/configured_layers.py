"""The layers of `CHANNEL_LAYERS` that are ours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from django.conf import settings
from django.db import connections
from django.utils.module_loading import import_string
from sqlalchemy import URL

from pgchannels.database.url import Host, parse_url
from pgchannels.django.database_url import sources_of_servers
from pgchannels.django.layer import PostgresChannelLayer
from pgchannels.errors import PgChannelsError
from pgchannels.names import DEFAULT_SCHEMA

OUR_PACKAGE: Final = "pgchannels."
_OF_ONE: Final = {"databases": "database", "urls": "url"}
_OF_SERVERS: Final = frozenset({*_OF_ONE, "pinned", "also_receive_from", "also_pinned"})
_THIS_MACHINE: Final = frozenset({"", "127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class ConfiguredLayer:
    """One entry of `CHANNEL_LAYERS`, or one of the servers of an entry with several."""

    name: str
    backend: type[PostgresChannelLayer]
    config: Mapping[str, Any]
    server: str = ""

    @property
    def schema(self) -> str:
        """The schema of its tables."""
        return str(self.config.get("schema", DEFAULT_SCHEMA))

    @property
    def named_alias(self) -> str | None:
        """The alias of `DATABASES` that it names."""
        named = self.config.get("database")
        return named if isinstance(named, str) else None

    @property
    def alias(self) -> str | None:
        """The alias of its database: the one that it names, or one with the same host, port and database name."""
        if self.named_alias is not None:
            return self.named_alias
        return next((alias for alias in connections.settings if self.is_at(alias)), None)

    def is_at(self, alias: str) -> bool:
        """Whether its database is that of an alias: by host, port and name."""
        place = _place(self.backend, self.config)
        return place is not None and place == _place(self.backend, {"database": alias})

    def by_server(self) -> "Iterator[ConfiguredLayer]":
        """The same entry for each of its servers, as if that were its only one; itself if these cannot be read."""
        option = next((option for option in _OF_ONE if self.config.get(option) is not None), None)
        try:
            servers = {} if option is None else _servers(option, self.config)
        except PgChannelsError:  # which a check reports
            servers = {}
        config = {name: value for name, value in self.config.items() if name not in _OF_SERVERS}
        for server, target in servers.items():
            yield replace(self, config={**config, _OF_ONE[str(option)]: target}, server=server)
        if not servers:
            yield self

    def url(self) -> str | URL:
        """Where its database is.

        :raises ConfigurationError: the settings do not name a PostgreSQL database.
        """
        return self.backend(**self.config).database_url()


def configured_layers(*, key: str = "CONFIG") -> Iterator[ConfiguredLayer]:
    """The entries whose backend is ours, or a subclass; invalid ones are skipped, because a check reports them.

    An entry with several servers comes once for each of them.

    :param key: `TEST_CONFIG` for what tests use in place of `CONFIG`.
    """
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    for name, entry in layers.items() if isinstance(layers, Mapping) else ():
        backend = backend_of(entry)
        config = entry.get(key, {} if key == "CONFIG" else None) if backend is not None else None
        if backend is not None and isinstance(config, Mapping):
            yield from ConfiguredLayer(name, backend, config).by_server()


def backend_of(entry: object) -> type[PostgresChannelLayer] | None:
    """The class of an entry, if it is ours."""
    try:
        backend = import_string(entry["BACKEND"]) if isinstance(entry, Mapping) else None
    except (ImportError, KeyError, AttributeError, TypeError):
        return None
    return backend if isinstance(backend, type) and issubclass(backend, PostgresChannelLayer) else None


def schemas_in(alias: str) -> list[str]:
    """The schemas whose tables belong in the database of an alias; none if all layers have their database elsewhere.

    If some layer uses another alias, or there is no layer at all, the tables may be wanted in this database as well.
    """
    layers = [*configured_layers(), *configured_layers(key="TEST_CONFIG")]
    by_alias: dict[str | None, set[str]] = {}
    for layer in layers:
        by_alias.setdefault(layer.alias, set()).add(layer.schema)
    if alias in by_alias:
        return sorted(by_alias[alias])
    if by_alias.keys() == {None}:
        return []
    return sorted({layer.schema for layer in layers}) or [DEFAULT_SCHEMA]


def main_layer() -> ConfiguredLayer | None:
    """The layer called `default`, or else the first one that is ours; of several servers, the first."""
    layers = {layer.name: layer for layer in reversed(list(configured_layers()))}
    return layers.get("default") or next(reversed(layers.values()), None)


def _servers(option: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The aliases or URLs of the servers, by their names, those first that are sent to."""
    sent_to, also = sources_of_servers(option, config[option]), config.get("also_receive_from")
    sources = {**sent_to, **({} if also is None else sources_of_servers(option, also)), **sent_to}
    return {name: name if option == "databases" else source.url() for name, source in sources.items()}


def _place(backend: type[PostgresChannelLayer], config: Mapping[str, Any]) -> object:
    """A value that is equal for two layers on one database; None if the configuration is wrong."""
    try:
        url = parse_url(backend(**config).database_url())
    except (PgChannelsError, TypeError):
        return None
    return {_name_and_port(host) for host in url.hosts}, url.database


def _name_and_port(host: Host) -> tuple[str, int]:
    return ("localhost" if host.name in _THIS_MACHINE else host.name), host.port
