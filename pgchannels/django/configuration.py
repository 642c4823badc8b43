"""From Django's way of naming a database to a URL."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from django.db import connections
from sqlalchemy import URL

from pgchannels.arguments import shown
from pgchannels.django.parameters import connection_parameters
from pgchannels.errors import ConfigurationError

# What a database dict of Django's may hold beside these concerns Django's own connections, or a pool.
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


def url_source(url: str | None, alias: str | None, keys: Mapping[str, Any]) -> Callable[[], str | URL]:
    """How to find the database's URL when it is needed: the same object as long as it has not changed.

    :raises ConfigurationError: not exactly one of the three ways was used, or a key is unknown.
    """
    if unknown := sorted(keys.keys() - _CONNECTION_KEYS - _IGNORED_KEYS):
        raise ConfigurationError(f"CHANNEL_LAYERS: unknown option {unknown[0]!r} in CONFIG")
    if sum((url is not None, alias is not None, bool(keys))) != 1:
        raise ConfigurationError(
            "CHANNEL_LAYERS: CONFIG needs one of 'url', 'database' (an alias of DATABASES),"
            " or the keys of a database: 'NAME', 'USER', 'PASSWORD', 'HOST', 'PORT'"
        )
    if url is not None:
        return lambda: url
    if alias is not None:
        if not isinstance(alias, str) or alias not in connections.settings:
            raise ConfigurationError(f"CHANNEL_LAYERS: 'database' is {shown(alias)}, which is no alias of DATABASES")
        return _UrlOfAlias(alias)
    return cache(lambda: url_of(keys))


class _UrlOfAlias:
    """Follows a test runner, which renames the database in Django's settings, each worker of it once more."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._latest: tuple[str, URL] | None = None

    def __call__(self) -> URL:
        database = connections.settings[self._alias]
        latest = self._latest
        if latest is None or latest[0] != database["NAME"]:
            self._latest = latest = (database["NAME"], url_of(database))
        return latest[1]


def url_of(database: Mapping[str, Any]) -> URL:
    """The URL of a database dict of Django's.

    :raises ConfigurationError: it is no PostgreSQL, has no name, or an option that cannot be obeyed.
    """
    engine = database.get("ENGINE", "postgresql")
    if not any(word in engine for word in ("postgresql", "postgis", "psycopg")):
        raise ConfigurationError(f"CHANNEL_LAYERS: the database's ENGINE is {engine!r}; pgchannels needs PostgreSQL")
    parameters = connection_parameters(database)
    name = parameters.pop("dbname", None)
    if not name and "service" not in parameters:
        raise ConfigurationError("CHANNEL_LAYERS: the database has no NAME")
    return URL.create(
        "postgresql",
        username=parameters.pop("user", None),
        password=parameters.pop("password", None),
        database=name,
        # In the query, a host may be the folder of a socket, and a port does without a host.
        query=parameters,
    )
