"""The URL of a database: which hosts it names, and what else is for the driver to read."""

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser
from configparser import Error as UnreadableConfiguration
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from pgchannels.errors import ConfigurationError

DatabaseTarget = str | URL | AsyncEngine

_DEFAULT_PORT: Final = "5432"
_LAST_PORT: Final = 65_535
_SERVICE_FILE: Final = "~/.pg_service.conf"

_SCHEME: Final = re.compile(r"postgres(ql)?(\+\w+)?")
_URL: Final = re.compile(
    r"[^:]+://(?:(?P<credentials>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?:/(?P<database>[^?#@]*))?(?:\?(?P<query>[^#]*))?"
)
# A name, and perhaps a port: `one`, `one:5432`, `[::1]:5432`, `/folder/of/a/socket`. It matches any text.
_HOST: Final = re.compile(r"(\[.+\]|/.*?(?=:\d+\Z|\Z)|[^:]*)(?::(.*))?", re.DOTALL)
_UNSENDABLE: Final = re.compile("[\0\ud800-\udfff]")

# A layer writes, so that whatever these ask for, it needs a primary.
_PRIMARY_WILL_DO: Final = frozenset({"any", "primary", "read-write", "prefer-standby"})
_NEVER_A_PRIMARY: Final = frozenset({"standby", "read-only"})


@dataclass(frozen=True, slots=True)
class Host:
    """Where a server may be: a machine, the folder of a socket, or, without a name, where the driver looks for one."""

    name: str
    port: int

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name or 'this machine'}:{self.port}"


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """What a URL says, and what PGHOST and PGPORT say where it says nothing.

    `dsn` has all that the driver should read for itself; it names neither hosts nor the credentials before them.
    """

    hosts: tuple[Host, ...]
    user: str | None
    password: str | None = field(repr=False)
    database: str | None
    dsn: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Parts:
    user: str
    password: str
    hosts: str
    database: str
    query: Mapping[str, str]


def parse_url(target: str | URL) -> DatabaseUrl:
    """Read a URL as libpq or SQLAlchemy write it.

    :raises ConfigurationError: it cannot be used; the text never shows any of it, since it may hold a password.
    """
    parts = _parts_of(target) if isinstance(target, URL) else _parts_of_text(target)
    texts = (parts.user, parts.password, parts.hosts, parts.database, *chain(*parts.query.items()))
    if any(map(_UNSENDABLE.search, texts)):
        raise ConfigurationError("the URL of the database has a character that cannot be sent, such as %00")
    service = _service(parts.query.get("service"))
    _require_primary_wanted(parts.query, service)
    return DatabaseUrl(
        hosts=tuple(dict.fromkeys(_hosts(parts, service))),
        user=parts.user or None,
        password=parts.password or None,
        database=parts.database or None,
        dsn=f"postgresql://?{urlencode(_for_the_driver(parts.query))}",
    )


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
    return _Parts(
        user=unquote(user),
        password=unquote(password),
        hosts=unquote(found["hosts"]),
        database=unquote(found["database"] or ""),
        query=_query(_fields(found["query"] or "")),
    )


def _require_postgresql(scheme: str) -> None:
    if not _SCHEME.fullmatch(scheme):
        raise ConfigurationError(
            "the database must be given as 'postgresql://user:password@host:port/name', a SQLAlchemy URL of PostgreSQL"
            " or an AsyncEngine"
        )


def _fields(query: str) -> list[tuple[str, str]]:
    if not all("=" in one for one in query.split("&") if one):
        raise ConfigurationError("the URL of the database has a query that is not name=value&name=value")
    return parse_qsl(query)


def _query(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parameters that have a value: the last one of each name, but all hosts."""
    query: dict[str, str] = {}
    for name, value in fields:
        if not name:
            raise ConfigurationError("the URL of the database has a parameter without a name in its query")
        if value:
            several = name in ("host", "port") and name in query
            query[name] = f"{query[name]},{value}" if several else value
    return query


def _for_the_driver(query: Mapping[str, str]) -> dict[str, str]:
    return {name: query[name] for name in query.keys() - {"host", "port", "target_session_attrs"}}


def _require_primary_wanted(query: Mapping[str, str], service: Mapping[str, str]) -> None:
    key = "target_session_attrs"
    wanted = query.get(key) or service.get(key) or os.environ.get("PGTARGETSESSIONATTRS") or "any"
    if wanted in _NEVER_A_PRIMARY:
        raise ConfigurationError(
            f"target_session_attrs={wanted!r} asks for a server that takes no writes, and a layer writes:"
            " leave it out, or say 'primary'"
        )
    if wanted not in _PRIMARY_WILL_DO:
        raise ConfigurationError(f"target_session_attrs is none of {', '.join(sorted(_PRIMARY_WILL_DO))}")


def _hosts(parts: _Parts, service: Mapping[str, str]) -> Iterator[Host]:
    name, _, port = parts.hosts.partition(":")
    named, port_alone = (parts.hosts, "") if name else ("", port)
    hosts = named or parts.query.get("host") or service.get("host") or os.environ.get("PGHOST") or ""
    ports = parts.query.get("port") or port_alone or service.get("port") or os.environ.get("PGPORT") or _DEFAULT_PORT
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
    number = int(text or _DEFAULT_PORT) if re.fullmatch("[0-9]{0,5}", text) else 0
    if not 0 < number <= _LAST_PORT:
        raise ConfigurationError("the URL of the database, or PGPORT, has a port that is no number from 1 to 65535")
    return number


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _service(name: str | None) -> Mapping[str, str]:
    """What the service file says of a service; nothing when there is none of that name, as the driver has it."""
    if name is None:
        return {}
    services = ConfigParser(interpolation=None)
    try:
        services.read(Path(os.environ.get("PGSERVICEFILE") or _SERVICE_FILE).expanduser())
    except (UnreadableConfiguration, OSError, ValueError, RuntimeError):
        raise ConfigurationError("the service file (PGSERVICEFILE or ~/.pg_service.conf) cannot be read") from None
    return dict(services[name]) if name in services else {}
