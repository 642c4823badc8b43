"""The password file of libpq, `~/.pgpass`."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_DEFAULT: Final = "~/.pgpass"
_FIELD: Final = re.compile(r"((?:\\.|[^:])*)(?::|$)")
_OTHERS: Final = 0o077

logger: logging.Logger = logging.getLogger("pgchannels")


def password_in_file(file: str | None, *, host: str, port: int, database: str, user: str) -> str | None:
    """Return the first password in the file for a server, by its name or the folder of its socket.

    :param file: by default PGPASSFILE or ~/.pgpass. A file that others may read is skipped, and logged.
    """
    hosts = {host or "localhost", "localhost"} if host.startswith("/") or not host else {host}
    for wanted_host, *others, password in _entries(file or os.environ.get("PGPASSFILE") or _DEFAULT):
        wanted = zip(others, (str(port), database, user), strict=True)
        if any(_fits(wanted_host, name) for name in hosts) and all(_fits(field, value) for field, value in wanted):
            return _plain(password)
    return None


def _entries(file: str) -> Iterator[list[str]]:
    try:
        path = Path(file).expanduser()
        if path.is_file() and os.name == "posix" and path.stat().st_mode & _OTHERS:
            logger.warning("the file of passwords %s is passed over, since others may read it: `chmod 600` it", path)
            return
        lines = path.read_text(errors="replace").split("\n")
    except (OSError, RuntimeError, ValueError):
        return
    for line in lines:
        fields = _FIELD.findall(line.removesuffix("\r"))[:5]
        if len(fields) == 5 and not line.startswith("#"):
            yield fields


def _fits(field: str, value: str) -> bool:
    return field == "*" or _plain(field) == value


def _plain(field: str) -> str:
    return re.sub(r"\\(.)", r"\1", field)
