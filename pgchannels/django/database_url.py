"""Turns Django's ways of naming a database into a URL."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import load_backend
from sqlalchemy import URL

from pgchannels.arguments import refusal, shown
from pgchannels.database.database import Database
from pgchannels.django.parameters import connection_parameters, parameters_of_settings
from pgchannels.errors import ConfigurationError, DatabaseUnavailable
from pgchannels.servers.targets import targets_by_name

# All other keys of a database dict concern Django's own connections, or a pool.
_CONNECTION_KEYS: Final = frozenset({"ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS"})
_IGNORED_KEYS: Final = frozenset(
    {
        "ATOMIC_REQUESTS",
        "AUTOCOMMIT",
        "CONN_HEALTH_CHECKS",
        "CONN_MAX_AGE",
        "DISABLE_SERVER_SIDE_CURSORS",
        "PSYCOPG_OPTIONS",  # the pool of channels_postgres
        "TEST",
        "TIME_ZONE",
    }
)


@dataclass(frozen=True, slots=True)
class DatabaseSource:
    """How a layer finds its database when it needs it.

    `key` stays the same for as long as the database does. `open` returns the `Database` that the layer connects to, by
    the name of its server if there are several.
    """

    key: Callable[[], Hashable]
    url: Callable[[], str | URL]
    open: Callable[[str], Database]


def sources_of_servers(option: str, servers: Any) -> dict[str, DatabaseSource]:
    """How to find the databases of a layer with several servers, by their names: of aliases, these.

    :param option: `databases` for aliases of DATABASES, or else for URLs.
    :raises ConfigurationError: one cannot be used.
    """
    if option != "databases":
        urls = targets_by_name(f"CHANNEL_LAYERS: {option!r}", servers)
        return {name: _source_of_url(url) for name, url in urls.items()}
    if isinstance(servers, str) or not isinstance(servers, Sequence) or not servers:
        raise refusal("CHANNEL_LAYERS: 'databases'", servers, "a list of aliases of DATABASES")
    by_alias: dict[str, DatabaseSource] = {}
    for alias in servers:
        source = _source_of_alias(option, alias)
        if alias in by_alias:
            raise ConfigurationError(f"CHANNEL_LAYERS: 'databases' has {shown(alias)} twice: give each database once")
        by_alias[alias] = source
    return by_alias


def database_source(url: str | None, alias: str | None, keys: Mapping[str, Any]) -> DatabaseSource:
    """How to find the database of a layer.

    :raises ConfigurationError: not exactly one of the three ways was used, or a key is unknown.
    """
    if unknown := sorted(keys.keys() - _CONNECTION_KEYS - _IGNORED_KEYS):
        raise ConfigurationError(f"CHANNEL_LAYERS: unknown option {unknown[0]!r} in CONFIG")
    if sum((url is not None, alias is not None, bool(keys))) != 1:
        raise ConfigurationError(
            "CHANNEL_LAYERS: CONFIG needs one of 'url', 'database' (an alias of DATABASES),"
            " or the keys of a database: 'NAME', 'USER', 'PASSWORD', 'HOST', 'PORT';"
            " or for several servers, 'databases' or 'urls'"
        )
    if url is not None:
        return _source_of_url(url)
    if alias is None:
        url_of_keys = cache(lambda: url_of(keys))
        return DatabaseSource(key=lambda: None, url=url_of_keys, open=lambda _: Database(url_of_keys()))
    return _source_of_alias("database", alias)


def _source_of_url(url: Any) -> DatabaseSource:
    return DatabaseSource(key=lambda: None, url=lambda: url, open=lambda server: Database(url, server=server))


def require_alias(option: str, alias: object) -> None:
    """Require that Django has a database.

    :raises ConfigurationError: it has none of this alias.
    """
    if not isinstance(alias, str) or alias not in connections.settings:
        raise ConfigurationError(f"CHANNEL_LAYERS: {option!r} has {shown(alias)}, which is no alias of DATABASES")


def _source_of_alias(option: str, alias: str) -> DatabaseSource:
    require_alias(option, alias)
    return DatabaseSource(
        # A test runner renames the database in Django's settings, and each of its workers does so again.
        key=lambda: connections.settings[alias]["NAME"],
        url=lambda: url_of_alias(alias),
        # Anew for each connection: a backend may give another password each time.
        open=lambda server: Database(lambda: url_of_alias(alias), server=server),
    )


def url_of_alias(alias: str) -> URL:
    """The parameters with which the backend of an alias would connect now, as a URL.

    :raises ConfigurationError: it is not PostgreSQL, has no name, or has a parameter that cannot be obeyed.
    :raises DatabaseUnavailable: the backend cannot say how to connect.
    """
    settings = connections.settings[alias]
    try:
        backend = connections.create_connection(alias)
        _require_postgresql(settings["ENGINE"], backend.vendor)
        parameters = backend.get_connection_params()
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"CHANNEL_LAYERS: the database {alias!r}: {error}") from error
    except ConfigurationError:
        raise
    except Exception as error:
        text = f"the backend of the database {alias!r} could not say how to connect: it raised {type(error).__name__}"
        raise DatabaseUnavailable(text) from error
    return _url(parameters | {"role": settings["OPTIONS"].get("assume_role")})


def url_of(database: Mapping[str, Any]) -> URL:
    """The URL for a database dict of Django.

    :raises ConfigurationError: it is not PostgreSQL, has no name, or has an option that cannot be obeyed.
    """
    engine = database.get("ENGINE", "postgresql")
    if not any(word in engine for word in ("postgresql", "postgis", "psycopg")):
        _require_postgresql(engine, _vendor(engine))
    return _url(parameters_of_settings(database))


def _url(given: Mapping[str, Any]) -> URL:
    parameters = connection_parameters(given)
    name = parameters.pop("dbname", None)
    if not name and "service" not in parameters:
        raise ConfigurationError("CHANNEL_LAYERS: the database has no NAME")
    return URL.create(
        "postgresql",
        username=parameters.pop("user", None),
        password=parameters.pop("password", None),
        database=name,
        # In the query, a host may be a socket's folder, and a port needs no host.
        query=parameters,
    )


def _vendor(engine: str) -> str:
    try:
        return str(load_backend(engine).DatabaseWrapper.vendor)
    except (ImproperlyConfigured, ImportError, AttributeError):
        return ""


def _require_postgresql(engine: str, vendor: str) -> None:
    if vendor != "postgresql":
        raise ConfigurationError(f"CHANNEL_LAYERS: the database's ENGINE is {engine!r}; pgchannels needs PostgreSQL")
