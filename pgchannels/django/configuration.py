"""From Django's way of naming a database to a URL."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from django.db import connections
from sqlalchemy import URL

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
    """How to find the database's URL when it is needed: a test runner may rename the database until then.

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
        if alias not in connections.settings:
            raise ConfigurationError(f"CHANNEL_LAYERS: 'database' is {alias!r}, which is no alias of DATABASES")
        # A test runner renames the database in these very settings.
        return lambda: url_of(connections.settings[alias])
    return lambda: url_of(keys)


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
