"""The URL."""

import re
from typing import Final
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from pgchannels.errors import ConfigurationError

_HOST: Final = re.compile(r"(\[.*\]|[^:]*)(?::(\d*))?")
_DEFAULT_PORT: Final = 5432
DatabaseTarget = str | URL | AsyncEngine


def _hosts(url: str) -> list[tuple[str, int]]:
    """The hosts of a URL with their ports; in its query as well, as libpq and SQLAlchemy take them."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    names = (parts.netloc.rpartition("@")[2] or ",".join(query.get("host", ()))).split(",")
    ports = ",".join(query.get("port", ())).split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    found = [(_HOST.fullmatch(name), port) for name, port in zip(names, ports, strict=False)]
    return [(host[1].strip("[]"), _port(host[2] or port)) for host, port in found if host is not None]


def _port(text: str) -> int:
    if not (text.isdecimal() or not text):
        raise ConfigurationError("the URL of the database has a port that is no number")
    return int(text or _DEFAULT_PORT)


def _driver_url(target: str | URL) -> str:
    url = target.render_as_string(hide_password=False) if isinstance(target, URL) else target
    # Never show the URL: it may hold a password.
    if not isinstance(url, str) or not re.match(r"postgres(ql)?(\+\w+)?://", url):
        raise ConfigurationError(
            "the database must be given as 'postgresql://user:password@host:port/name', a SQLAlchemy URL of PostgreSQL"
            " or an AsyncEngine"
        )
    if not all(_HOST.fullmatch(host) for host in urlsplit(url).netloc.rpartition("@")[2].split(",")):
        raise ConfigurationError("the URL of the database has a port that is no number")
    return re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
