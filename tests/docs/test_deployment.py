"""The page on deployment: its commands run."""

import pytest

from pgchannels.cli import main
from pgchannels.database.revision import REVISIONS
from tests.support.snippets import commands

PAGE = "docs/how-to/deployment.md"


def test_commands(owner_url: str, application_role: str, capsys: pytest.CaptureFixture[str]) -> None:
    downgrade, upgrade = commands(PAGE)
    assert main([*downgrade[1:-1], owner_url]) == 0
    assert f"went back, {REVISIONS[-1]} → 0001" in capsys.readouterr().out
    [*options, role] = upgrade[1:]
    options[options.index("--url") + 1] = owner_url
    assert role == "app"
    assert main([*options, application_role]) == 0
    assert f"were upgraded, 0001 → {REVISIONS[-1]}" in capsys.readouterr().out
