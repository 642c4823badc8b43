"""Turns connection parameters, as Django and psycopg take them, into those of a URL."""

from collections.abc import Mapping
from typing import Any, Final

from pgchannels.database.parameters import obeyed
from pgchannels.database.url import is_port
from pgchannels.errors import ConfigurationError

_SETTINGS: Final = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}

# These concern Django's own connections: their Python objects, or their pool.
_IGNORED: Final = frozenset(
    {
        "autocommit",
        "connection_factory",
        "context",
        "cursor_factory",
        "isolation_level",
        "pool",
        "prepare_threshold",
        "row_factory",
        "server_side_binding",
    }
)


def parameters_of_settings(database: Mapping[str, Any]) -> dict[str, Any]:
    """What Django would pass to psycopg for a database dict, under libpq's names."""
    parameters = dict(database.get("OPTIONS") or {})
    # In Django, OPTIONS take precedence over NAME, but over no other key.
    for key, name in _SETTINGS.items():
        if database.get(key) and not (key == "NAME" and "dbname" in parameters):
            parameters[name] = database[key]
    return parameters


def connection_parameters(parameters: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of psycopg's `connect()` that apply to the layer as well, as texts.

    :raises ConfigurationError: one cannot be obeyed; the text names it, and never shows a password.
    """
    given = {
        "role" if name == "assume_role" else name: _text(value)
        for name, value in parameters.items()
        if value is not None and name not in _IGNORED
    }
    taken = obeyed(given, "CHANNEL_LAYERS: the database's OPTIONS", shows_values=True)
    return taken | _endpoints(taken.get("host", ""), taken.get("port", ""))


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _endpoints(hosts: str, ports: str) -> dict[str, str]:
    """`host` and `port` with as many ports as hosts, or with one port and no host."""
    names, numbers = hosts.split(","), ports.split(",")
    if not all(is_port(number) or not number for number in numbers):
        raise ConfigurationError("CHANNEL_LAYERS: the database's PORT is no number from 1 to 65535")
    if len(numbers) not in (1, len(names)):
        raise ConfigurationError(f"CHANNEL_LAYERS: the database has {len(names)} hosts in HOST, {len(numbers)} in PORT")
    if len(names) > 1:
        numbers = [number or "5432" for number in numbers * (len(names) // len(numbers))]
    host, port = ",".join(f"[{name}]" if ":" in name else name for name in names), ",".join(numbers)
    return {key: value for key, value in (("host", host), ("port", port)) if value}
