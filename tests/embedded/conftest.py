"""Every test has a temporary directory of its own, which its servers must leave empty."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .processes import eventually


@pytest.fixture(autouse=True)
def temporary_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Short enough for a socket, and open to every account, like the system's."""
    directory = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    directory.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(directory))
    try:
        yield directory
        eventually(lambda: not list(directory.iterdir()))
    finally:
        _kill_servers_in(directory)
        shutil.rmtree(directory)


def _kill_servers_in(directory: Path) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if (process / "cwd").readlink().is_relative_to(directory):
                os.kill(int(process.name), signal.SIGKILL)
