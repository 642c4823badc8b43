"""The parameters of a database in a service file and the environment, read as libpq does."""

import os
from collections.abc import Mapping, Set
from configparser import ConfigParser
from configparser import Error as UnreadableConfiguration
from pathlib import Path
from typing import Final

from pgchannels.database.parameters import obeyed
from pgchannels.errors import ConfigurationError

_SERVICE_FILE: Final = "~/.pg_service.conf"


# What libpq reads from the environment if nothing else sets it; passwords are read when they are needed.
_ENVIRONMENT: Final = {
    "PGAPPNAME": "application_name",
    "PGCHANNELBINDING": "channel_binding",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGDATABASE": "dbname",
    "PGGSSENCMODE": "gssencmode",
    "PGGSSLIB": "gsslib",
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGKRBSRVNAME": "krbsrvname",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGOPTIONS": "options",
    "PGPORT": "port",
    "PGREQUIREAUTH": "require_auth",
    "PGREQUIREPEER": "requirepeer",
    "PGSERVICE": "service",
    "PGSERVICEFILE": "servicefile",
    "PGSSLCERT": "sslcert",
    "PGSSLCRL": "sslcrl",
    "PGSSLKEY": "sslkey",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMODE": "sslmode",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLROOTCERT": "sslrootcert",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGUSER": "user",
}


def elsewhere(written: Set[str], query: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the service and the environment set that the URL does not."""
    variables = {name: variable for variable, name in _ENVIRONMENT.items() if os.environ.get(variable)}
    environment = {name: os.environ[variables[name]] for name in variables if name not in written}
    name = query.get("service") or environment.pop("service", None)
    file = query.get("servicefile") or environment.pop("servicefile", None)
    service = {key: value for key, value in _service(name, file).items() if key not in written}
    taken: dict[str, str] = {}
    for key in environment.keys() - service.keys():
        taken |= obeyed({key: environment[key]}, f"{variables[key]} in the environment")
    return obeyed(service, "the service file"), taken


def _service(name: str | None, file: str | None) -> dict[str, str]:
    """Return the parameters of a service from the user's service file, or else from the system's."""
    if name is None:
        return {}
    for path in (file or _SERVICE_FILE, *_system_service_file()):
        services = ConfigParser(interpolation=None)
        try:
            services.read(Path(path).expanduser())
        except (UnreadableConfiguration, OSError, ValueError, RuntimeError):
            raise ConfigurationError("the service file (PGSERVICEFILE or ~/.pg_service.conf) cannot be read") from None
        if name in services:
            return dict(services[name])
    raise ConfigurationError(
        "the service of the database, by `service` or PGSERVICE, is in no service file: add it to the file of"
        " PGSERVICEFILE or to ~/.pg_service.conf"
    )


def _system_service_file() -> list[str]:
    folder = os.environ.get("PGSYSCONFDIR")
    return [f"{folder}/pg_service.conf"] if folder else []
