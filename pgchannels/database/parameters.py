"""The parameters of a connection, by libpq's names: which are obeyed, which change nothing, which are refused by name.

Whatever psql and psycopg obey is obeyed here, or refused: nothing that somebody may rely on is silently dropped.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from pgchannels.errors import ConfigurationError

# Other names elsewhere: SQLAlchemy and JDBC write `ssl`, asyncpg `database`.
_OTHER_NAMES: Final = {"ssl": "sslmode", "database": "dbname"}
_SSL_WORDS: Final = {"true": "require", "1": "require", "on": "require", "false": "disable", "0": "disable"}

_TLS_VERSIONS: Final = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_CHOICES: Final = {
    "gsslib": ("gssapi", "sspi"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "ssl_max_protocol_version": _TLS_VERSIONS,
    # A layer writes, so it needs a primary, whatever these ask for.
    "target_session_attrs": ("any", "primary", "read-write", "prefer-standby"),
}
_FILES: Final = ("sslcert", "sslcrl", "sslkey", "sslrootcert")
_TEXTS: Final = (
    "application_name",
    "dbname",
    "fallback_application_name",
    "host",
    "krbsrvname",
    "options",
    "passfile",
    "password",
    "port",
    "role",  # not a parameter of libpq: Django's `assume_role` sets it
    "service",
    "servicefile",
    "sslpassword",
    "user",
)
_NUMBERS: Final = ("connect_timeout",)

# These values ask for no more than a layer does anyway.
_HARMLESS: Final = {
    "channel_binding": ("disable", "prefer"),
    "gssdelegation": ("0",),
    "gssencmode": ("disable", "prefer"),
    "keepalives": ("0", "1"),  # a layer detects dead connections with its own timeouts
    "load_balance_hosts": ("disable", "random"),  # it looks for the primary
    "max_protocol_version": ("3.0", "3.2", "latest"),
    "min_protocol_version": ("3.0",),
    "pgbouncer": ("false",),
    "replication": ("0", "false", "no", "off"),
    "sslcertmode": ("allow",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
}
# As above; and a layer prepares the same few statements on each connection.
_HARMLESS_NUMBERS: Final = (
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "prepare_threshold",
    "prepared_statement_cache_size",
    "statement_cache_size",
    "tcp_user_timeout",
)
_HARMLESS_TEXTS: Final = ("client_encoding",)

_REFUSED: Final = (
    "hostaddr",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "sslcrldir",
    "sslkeylogfile",
)
_REMEDIES: Final = {
    "channel_binding": "leave it out; sslmode=verify-full with sslrootcert keeps others out as well",
    "hostaddr": "give the address as the host",
    "pgbouncer": "leave it out; through a pooler that shares sessions, a layer needs poll= or listen_url=",
    "sslrootcert": "name a file, such as /etc/ssl/certs/ca-certificates.crt for the authorities of the system",
}
_NO_PRIMARY: Final = ("standby", "read-only")

KNOWN: Final = frozenset(
    {
        *_OTHER_NAMES,
        *_CHOICES,
        *_FILES,
        *_TEXTS,
        *_NUMBERS,
        *_HARMLESS,
        *_HARMLESS_NUMBERS,
        *_HARMLESS_TEXTS,
        *_REFUSED,
    }
)
_PUBLIC_WORDS: Final = frozenset({"0", "disable", "require", "system", "true", *_NO_PRIMARY})
_PUBLIC_NAME: Final = re.compile(r"[A-Za-z_.]{1,40}")


def obeyed(parameters: Mapping[str, str], place: str, *, shows_values: bool = False) -> dict[str, str]:
    """Return the parameters to obey, by libpq's names; leave out those that are empty or change nothing.

    :param place: where they were found, for errors.
    :param shows_values: whether errors show more than names and known words. In an unescaped URL, part of the password
        may look like a value.
    :raises ConfigurationError: one cannot be obeyed; the text names it and says what to do.
    """
    found: dict[str, str] = {}
    for name, value in parameters.items():
        if trouble := _trouble(name, value):
            shown = f"{name}={value!r}" if shows_values or value in _PUBLIC_WORDS else name
            raise ConfigurationError(f"{place}: {_named(name, shown)} {trouble}")
        if value and not (name in _HARMLESS or name in _HARMLESS_NUMBERS or name in _HARMLESS_TEXTS):
            known_name = _OTHER_NAMES.get(name, name)
            if known_name == name or known_name not in parameters:
                found[known_name] = _SSL_WORDS.get(value, value) if name == "ssl" else value
    return found


def _trouble(name: str, value: str) -> str:
    """Return what is wrong with a parameter, and what to do."""
    if name not in KNOWN:
        return f"is no parameter of a connection: {_advice(name)}"
    if not value:
        return ""
    if name in _REFUSED:
        return f"cannot be obeyed by the driver: {_REMEDIES.get(name, 'leave it out')}"
    if name in _HARMLESS and value not in _HARMLESS[name]:
        remedy = _REMEDIES.get(name, f"leave it out, or say {' or '.join(_HARMLESS[name])}")
        return f"cannot be obeyed: {remedy}"
    if name in _NUMBERS or name in _HARMLESS_NUMBERS:
        return "" if re.fullmatch(r"-?[0-9]{1,9}", value) else "is no whole number"
    if name in _FILES:
        remedy = _REMEDIES.get(name, "correct the path, or leave it out")
        return "" if _is_file(value) else f"names a file, and there is no such file: {remedy}"
    return _trouble_of_choice(name, value)


def _trouble_of_choice(name: str, value: str) -> str:
    choices = _CHOICES.get(_OTHER_NAMES.get(name, name))
    if choices is None or value in choices or (name == "ssl" and value in _SSL_WORDS):
        return ""
    if name == "target_session_attrs" and value in _NO_PRIMARY:
        return "asks for a server that takes no writes, and a layer writes: leave it out, or say 'primary'"
    return f"is none of {', '.join(choices)}: say one of them, or leave it out"


def _named(name: str, shown: str) -> str:
    if name in KNOWN and name not in _REFUSED:  # some of these are secrets
        return shown
    return f"{name!r}" if _PUBLIC_NAME.fullmatch(name) else "one of the names"


def _advice(name: str) -> str:
    if similar := get_close_matches(name.lower(), KNOWN, n=1, cutoff=0.75):
        return f"did you mean {similar[0]!r}?"
    return "leave it out; settings of the server are written as options='-c name=value'"


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False
