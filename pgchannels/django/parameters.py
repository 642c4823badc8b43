"""The parameters of a connection, as Django and psycopg take them, in the form that asyncpg takes.

What psycopg obeys is obeyed, or refused by name: nothing is dropped that somebody may rely on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pgchannels.errors import ConfigurationError

_SETTINGS: Final = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}

_TAKEN: Final = frozenset(
    {
        "application_name",
        "dbname",
        "gsslib",
        "host",
        "krbsrvname",
        "options",
        "passfile",
        "password",
        "port",
        "service",
        "sslnegotiation",
        "sslpassword",
        "user",
    }
)

_CHOICES: Final = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}

_FILES: Final = frozenset({"sslcert", "sslcrl", "sslkey", "sslrootcert"})

# The driver goes by other names for these.
_OTHER_NAMES: Final = {"assume_role": "role", "fallback_application_name": "application_name"}

# These concern Django's own connections: their Python objects, their pool, or timeouts, which a layer has of its own.
_IGNORED: Final = frozenset(
    {
        "autocommit",
        "client_encoding",
        "connect_timeout",
        "connection_factory",
        "context",
        "cursor_factory",
        "isolation_level",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "pool",
        "prepare_threshold",
        "row_factory",
        "server_side_binding",
        "tcp_user_timeout",
    }
)

# The driver has nothing of the kind: these values ask for no more than it does anyway.
_HARMLESS: Final = {
    "channel_binding": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "gssencmode": ("disable", "prefer"),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}


def connection_parameters(database: Mapping[str, Any]) -> dict[str, str]:
    """The parameters of a database dict of Django's, without those that are empty.

    :raises ConfigurationError: one cannot be obeyed; the text names it, and never shows a password.
    """
    options = database.get("OPTIONS") or {}
    parameters: dict[str, str] = {}
    for name, value in options.items():
        if value is not None and name not in _IGNORED:
            parameters |= _taken(name, str(value))
    # Django lets OPTIONS stand above NAME, and below all others.
    for key, name in _SETTINGS.items():
        if database.get(key) and not (key == "NAME" and "dbname" in parameters):
            parameters[name] = str(database[key])
    return parameters | _endpoints(parameters.get("host", ""), parameters.get("port", ""))


def _taken(name: str, value: str) -> dict[str, str]:
    if name in _HARMLESS:
        _require(
            value in _HARMLESS[name], f"{name}={value!r}, which pgchannels cannot obey: its driver has no such thing"
        )
        return {}
    if name in _CHOICES:
        _require(value in _CHOICES[name], f"{name}={value!r}, which is none of {', '.join(_CHOICES[name])}")
    elif name in _FILES:
        _require(Path(value).is_file(), f"{name}={value!r}, and there is no such file")
    else:
        _require(name in _TAKEN or name in _OTHER_NAMES, f"{name!r}, which pgchannels does not know how to obey")
    return {_OTHER_NAMES.get(name, name): value}


def _endpoints(hosts: str, ports: str) -> dict[str, str]:
    """`host` and `port` with as many ports as hosts, or with one port and no host."""
    names, numbers = hosts.split(","), ports.split(",")
    if not all(number.isdecimal() or not number for number in numbers):
        raise ConfigurationError("CHANNEL_LAYERS: the database's PORT is no number")
    if len(numbers) not in (1, len(names)):
        raise ConfigurationError(f"CHANNEL_LAYERS: the database has {len(names)} hosts in HOST, {len(numbers)} in PORT")
    if len(names) > 1:
        numbers = [number or "5432" for number in numbers * (len(names) // len(numbers))]
    host, port = ",".join(f"[{name}]" if ":" in name else name for name in names), ",".join(numbers)
    return {key: value for key, value in (("host", host), ("port", port)) if value}


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ConfigurationError(f"CHANNEL_LAYERS: the database's OPTIONS have {complaint}")
