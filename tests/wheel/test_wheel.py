"""The built wheel, alone in an empty environment."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pgchannels

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 300

PUBLISH_AND_RECEIVE = """
import asyncio, sys
from pgchannels import MessageLayer

async def main():
    async with MessageLayer(sys.argv[1]) as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", "from the wheel")
        print((await anext(subscription)).payload)

asyncio.run(main())
"""


def run(*command: object, cwd: Path) -> str:
    """Run a command outside the repository and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    [wheel] = folder.glob("pgchannels-*.whl")
    return wheel


def test_wheel_holds_revisions_examples_and_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("py.typed", "_alembic/env.py", "_alembic/versions/0001_log.py", "_alembic/sql/0001/deliver.sql"):
        assert f"pgchannels/{name}" in names
    examples = {name.split("/")[2] for name in names if name.startswith("pgchannels/_examples/")}
    assert examples == {"chat_page", "django_chat", "fastapi_chat"}  # what the demo runs
    assert not [name for name in names if not name.startswith("pgchannels")]


def test_compileall_accepts_all_modules_of_the_wheel(wheel: Path) -> None:
    """It is what `pip install` and the images of containers do with them."""
    with zipfile.ZipFile(wheel) as content:
        for name in content.namelist():
            if name.endswith(".py"):
                compile(content.read(name), name, "exec", dont_inherit=True)


def test_wheel_says_where_its_users_find_help(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        [metadata] = [content.read(name).decode() for name in content.namelist() if name.endswith("/METADATA")]
    for line in (f"Version: {pgchannels.__version__}", "Author: The pgchannels authors", "Requires-Python: >=3.11"):
        assert f"\n{line}\n" in metadata
    for kind in ("Source", "Issues", "Documentation", "Changelog"):
        assert f"\nProject-URL: {kind}, https://github.com/pgchannels/pgchannels" in metadata
    for version in ("3.11", "3.12", "3.13"):
        assert f"\nClassifier: Programming Language :: Python :: {version}\n" in metadata


def test_wheel_alone_upgrades_and_delivers(wheel: Path, empty_database_url: str, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "environment", cwd=tmp_path)
    programs = tmp_path / "environment" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    printed = run(programs / "pgchannels", "upgrade", "--url", empty_database_url, cwd=tmp_path)
    assert "were created" in printed
    printed = run(programs / "python", "-W", "error", "-c", PUBLISH_AND_RECEIVE, empty_database_url, cwd=tmp_path)
    assert printed == "from the wheel\n"
