"""The parameters of a database in a service file and the environment, read as libpq does."""

import os
from collections.abc import Mapping, Set
from itertools import takewhile
from pathlib import Path
from typing import Final

from pgchannels.database.parameters import obeyed
from pgchannels.errors import ConfigurationError

_SERVICE_FILE: Final = "~/.pg_service.conf"
_COMMENTS: Final = "#;"
_OTHER_SERVICES: Final = frozenset({"service", "servicefile"})


# What libpq reads from the environment if nothing else sets it; passwords are read when they are needed.
_ENVIRONMENT: Final = {
    "PGAPPNAME": "application_name",
    "PGCHANNELBINDING": "channel_binding",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGDATABASE": "dbname",
    "PGGSSDELEGATION": "gssdelegation",
    "PGGSSENCMODE": "gssencmode",
    "PGGSSLIB": "gsslib",
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGKRBSRVNAME": "krbsrvname",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGMAXPROTOCOLVERSION": "max_protocol_version",
    "PGMINPROTOCOLVERSION": "min_protocol_version",
    "PGOPTIONS": "options",
    "PGPORT": "port",
    "PGREQUIREAUTH": "require_auth",
    "PGREQUIREPEER": "requirepeer",
    "PGSERVICE": "service",
    "PGSERVICEFILE": "servicefile",
    "PGSSLCERT": "sslcert",
    "PGSSLCERTMODE": "sslcertmode",
    "PGSSLCOMPRESSION": "sslcompression",
    "PGSSLCRL": "sslcrl",
    "PGSSLCRLDIR": "sslcrldir",
    "PGSSLKEY": "sslkey",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLSNI": "sslsni",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGUSER": "user",
}
_REQUIRES_TLS: Final = "PGREQUIRESSL"  # older than PGSSLMODE, which comes before it; libpq obeys what begins with 1


def elsewhere(written: Set[str], query: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the service and the environment set that the URL does not."""
    variables, environment = _environment(written)
    name = query.get("service") or environment.pop("service", None)
    file = query.get("servicefile") or environment.pop("servicefile", None)
    service = {key: value for key, value in _service(name, file).items() if key not in written}
    taken: dict[str, str] = {}
    for key in environment.keys() - service.keys():
        taken |= obeyed({key: environment[key]}, f"{variables[key]} in the environment")
    return obeyed(service, "the service file"), taken


def _environment(written: Set[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the variables that are set, by the names of their parameters, and what they set."""
    variables = {name: variable for variable, name in _ENVIRONMENT.items() if os.environ.get(variable)}
    environment = {name: os.environ[variables[name]] for name in variables if name not in written}
    if os.environ.get(_REQUIRES_TLS, "").startswith("1") and "sslmode" not in variables.keys() | written:
        return variables | {"sslmode": _REQUIRES_TLS}, environment | {"sslmode": "require"}
    return variables, environment


def _service(name: str | None, file: str | None) -> dict[str, str]:
    """Return the parameters of a service from the user's service file, or else from the system's."""
    if name is None:
        return {}
    for path in (file or _SERVICE_FILE, *_system_service_file()):
        service = _service_in(_lines(path), name)
        if service is not None:
            return service
    raise ConfigurationError(
        "the service of the database, by `service` or PGSERVICE, is in no service file: add it to the file of"
        " PGSERVICEFILE or to ~/.pg_service.conf"
    )


def _lines(file: str) -> list[str]:
    """Return the lines of a service file that say something, without the spaces around them."""
    try:
        text = Path(file).expanduser().read_text()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, RuntimeError):
        raise ConfigurationError("the service file (PGSERVICEFILE or ~/.pg_service.conf) cannot be read") from None
    lines = map(str.strip, text.split("\n"))
    return [line for line in lines if line and line[0] not in _COMMENTS]


def _service_in(lines: list[str], name: str) -> dict[str, str] | None:
    """Return the parameters of the first service of this name: of each, the first value."""
    if f"[{name}]" not in lines:
        return None
    service: dict[str, str] = {}
    for line in takewhile(lambda line: not line.startswith("["), lines[lines.index(f"[{name}]") + 1 :]):
        key, separator, value = line.partition("=")
        if not separator:
            raise ConfigurationError(
                "the service file (PGSERVICEFILE or ~/.pg_service.conf) has a line that is not name=value: correct it"
            )
        service.setdefault(key.strip().lower(), value.strip())
    for key in service.keys() & _OTHER_SERVICES:
        raise ConfigurationError(
            f"the service file: {key!r} stands in a service, which cannot name another: take it out"
        )
    return service


def _system_service_file() -> list[str]:
    folder = os.environ.get("PGSYSCONFDIR")
    return [f"{folder}/pg_service.conf"] if folder else []
