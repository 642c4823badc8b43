"""The URL of a database: which hosts it names, and what the driver must read."""

import getpass
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from pgchannels.database.environment import elsewhere
from pgchannels.database.parameters import obeyed
from pgchannels.errors import ConfigurationError

DatabaseTarget = str | URL | AsyncEngine

EXAMPLE_URL: Final = "postgresql://user:password@host:port/name"
_DEFAULT_PORT: Final = "5432"
_LAST_PORT: Final = 65_535

# The driver reads these from its own URL; everything else is passed as arguments.
_OF_DRIVER: Final = frozenset(
    {
        "gsslib",
        "krbsrvname",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
    }
)
_SETTINGS: Final = ("options", "role")

_SCHEME: Final = re.compile(r"postgres(ql)?(\+\w+)?")
_URL: Final = re.compile(
    r"[^:]+://(?:(?P<credentials>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?:/(?P<database>[^?#@]*))?(?:\?(?P<query>[^#]*))?"
)
# A name, and perhaps a port: `one`, `one:5432`, `[::1]:5432`, `/folder/of/a/socket`. It matches any text.
_HOST: Final = re.compile(r"(\[.+\]|/.*?(?=:\d+\Z|\Z)|[^:]*)(?::(.*))?", re.DOTALL)
_UNSENDABLE: Final = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Host:
    """Where a server may be: a machine, the folder of a socket or, without a name, wherever the driver looks."""

    name: str
    port: int

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name or 'this machine'}:{self.port}"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """What a URL says, completed by a service and the environment.

    `dsn` holds what the driver reads itself: TLS and Kerberos. `settings` are for the server.
    """

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None = field(repr=False)
    passfile: str | None
    database: str | None
    settings: Mapping[str, str]
    connect_timeout: int | None
    requires_tls: bool
    dsn: str = field(repr=False)

    def user_name(self) -> str:
        """Return the user, or else the account of this process.

        :raises ConfigurationError: the account has no name.
        """
        try:
            return self.user or getpass.getuser()
        except (ImportError, KeyError, OSError):
            raise ConfigurationError(
                "the URL of the database names no user, and the account of this process has no name: write"
                " postgresql://user@…, or set PGUSER"
            ) from None

    def database_name(self) -> str:
        """Return the database, or else the one that has the user's name."""
        return self.database or self.user_name()


@dataclass(frozen=True, slots=True)
class _Parts:
    user: str
    password: str
    hosts: str
    database: str
    query: Mapping[str, str]
    may_hold_password: bool = False  # in the query


def parse_url(target: str | URL) -> DatabaseUrl:
    """Read a URL in the form of libpq or SQLAlchemy.

    :raises ConfigurationError: it cannot be used; the text shows no more of it than names of parameters, since a URL
        may hold a password.
    """
    parts = _parts_of(target) if isinstance(target, URL) else _parts_of_text(target)
    _require_sendable("the URL of the database", parts.user, parts.password, parts.hosts, parts.database)
    _require_sendable("the URL of the database", *chain(*parts.query.items()))
    with _password_hidden(parts.may_hold_password):
        query = obeyed(parts.query, "the URL of the database")
    service, environment = elsewhere(parts.query.keys() | query.keys(), query)
    _require_sendable("the service file or the environment", *service.values(), *environment.values())
    given = environment | service | query
    hosts = tuple(dict.fromkeys(_hosts(parts.hosts, query, service, environment)))
    _require_tls_for_direct(given)
    return DatabaseUrl(
        hosts=hosts,
        user=parts.user or given.get("user"),
        password=parts.password or given.get("password"),
        passfile=given.get("passfile"),
        database=parts.database or given.get("dbname"),
        settings=_settings(given),
        connect_timeout=int(given["connect_timeout"]) if "connect_timeout" in given else None,
        requires_tls=_requires_tls(given),
        dsn=f"postgresql://?{urlencode({name: given[name] for name in sorted(_OF_DRIVER & given.keys())})}",
    )


@contextmanager
def _password_hidden(may_be_in_query: bool) -> Iterator[None]:
    """Raise an error that names no parameter where a parameter may be a part of the password."""
    try:
        yield
    except ConfigurationError:
        if not may_be_in_query:
            raise
        raise ConfigurationError(
            "the URL of the database has a query that cannot be used as name=value&name=value, and an '@' in it:"
            " write '?' in a password as %3F, and '@' in a parameter as %40"
        ) from None


def _require_sendable(place: str, *texts: str) -> None:
    if any(map(_UNSENDABLE.search, texts)):
        raise ConfigurationError(f"{place} has a character that cannot be sent, such as %00: take it out")


def _settings(given: Mapping[str, str]) -> dict[str, str]:
    settings = {name: given[name] for name in _SETTINGS if name in given}
    name = given.get("application_name") or given.get("fallback_application_name")
    return settings | {"application_name": name} if name else settings


def _require_tls_for_direct(given: Mapping[str, str]) -> None:
    if given.get("sslnegotiation") == "direct" and not _requires_tls(given):
        raise ConfigurationError(
            "the database's sslnegotiation=direct needs sslmode=require, verify-ca or verify-full beside it"
        )


def _requires_tls(given: Mapping[str, str]) -> bool:
    return given.get("sslmode") in ("require", "verify-ca", "verify-full")


def _parts_of(url: URL) -> _Parts:
    _require_postgresql(url.drivername)
    host = f"[{url.host}]" if _is_ipv6(url.host or "") else url.host or ""
    return _Parts(
        user=str(url.username or ""),
        password=str(url.password or ""),
        hosts=host if url.port is None else f"{host}:{url.port}",
        database=url.database or "",
        query=_query([(name, value) for name, values in url.normalized_query.items() for value in values]),
    )


def _parts_of_text(text: object) -> _Parts:
    url = text.strip() if isinstance(text, str) else ""
    _require_postgresql(url.partition("://")[0] if "://" in url else "")
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigurationError(
            "the URL of the database cannot be read: in names and passwords, write '@' as %40, '/' as %2F,"
            " '?' as %3F and '#' as %23"
        )
    user, _, password = (found["credentials"] or "").partition(":")
    query = found["query"] or ""
    may_hold_password = "@" in query  # which began before an unescaped '?'
    with _password_hidden(may_hold_password):
        fields = _fields(query)
    return _Parts(
        user=unquote(user),
        password=unquote(password),
        hosts=unquote(found["hosts"]),
        database=unquote(found["database"] or ""),
        query=_query(fields),
        may_hold_password=may_hold_password,
    )


def _require_postgresql(scheme: str) -> None:
    if not _SCHEME.fullmatch(scheme):
        raise ConfigurationError(
            f"the database must be given as '{EXAMPLE_URL}', a SQLAlchemy URL of PostgreSQL or an AsyncEngine"
        )


def _fields(query: str) -> list[tuple[str, str]]:
    if not all("=" in one for one in query.split("&") if one):
        raise ConfigurationError("the URL of the database has a query that is not name=value&name=value")
    return parse_qsl(query)


def _query(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters that have a value: the last one of each name, but all hosts."""
    query: dict[str, str] = {}
    for name, value in fields:
        if not name:
            raise ConfigurationError("the URL of the database has a parameter without a name in its query")
        if value:
            several = name in ("host", "port") and name in query
            query[name] = f"{query[name]},{value}" if several else value
    return query


def _hosts(
    text: str, query: Mapping[str, str], service: Mapping[str, str], environment: Mapping[str, str]
) -> Iterator[Host]:
    name, _, port = text.partition(":")
    named, port_alone = (text, "") if name else ("", port)
    hosts = named or query.get("host") or service.get("host") or environment.get("host") or ""
    ports = query.get("port") or port_alone or service.get("port") or environment.get("port") or _DEFAULT_PORT
    names, numbers = hosts.split(","), ports.split(",")
    if len(numbers) not in (1, len(names)):
        raise ConfigurationError(
            f"the database has {len(names)} hosts and {len(numbers)} ports (in its URL, PGHOST or PGPORT):"
            " give one port for all, or one for each host"
        )
    if len(names) > 1 and not all(names):
        raise ConfigurationError("the database has an empty host among others (in its URL or PGHOST)")
    numbers = numbers * len(names) if len(numbers) == 1 else numbers
    return map(_host, names, numbers)


def _host(text: str, port: str) -> Host:
    if _is_ipv6(text):
        return Host(text, _port(port))
    found = _HOST.fullmatch(text)
    assert found is not None
    name = found[1].removeprefix("[").removesuffix("]")
    return Host(_resolvable(name), _port(found[2] or port))


def _resolvable(name: str) -> str:
    try:
        if not name.startswith("/"):
            name.encode("idna")
    except UnicodeError:
        raise ConfigurationError("the database has a host that is no name (in its URL or PGHOST)") from None
    return name


def _port(text: str) -> int:
    if text and not is_port(text):
        raise ConfigurationError("the URL of the database, or PGPORT, has a port that is no number from 1 to 65535")
    return int(text or _DEFAULT_PORT)


def is_port(text: str) -> bool:
    """Whether a text is a port number."""
    return re.fullmatch("[0-9]{1,5}", text) is not None and 0 < int(text) <= _LAST_PORT


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
