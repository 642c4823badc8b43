"""Processes of the small project in `tests/django/project`, and of the command line of the package."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.support.subprocesses import communicate

PROJECT = Path(__file__).parents[1] / "django" / "project"

Databases = dict[str, dict[str, Any]]
Layers = dict[str, dict[str, Any]]


class CommandFailed(AssertionError):
    """A command ended with an error or said something on stderr."""


async def manage(
    databases: Databases,
    *arguments: str,
    alias: str = "default",
    router: str = "",
    schema: str = "pgchannels",
    layers: Layers | None = None,
    apps: str = "pgchannels.django",
    quiet: bool = True,
) -> str:
    """What `manage.py` prints in the project with these databases; a warning, or a word on stderr, is an error."""
    environment = {
        "PROJECT_APPS": apps,
        "PROJECT_LAYERS": json.dumps(layers),
        "PROJECT_DATABASES": json.dumps(databases),
        "PROJECT_ALIAS": alias,
        "PROJECT_ROUTER": router,
        "PROJECT_SCHEMA": schema,
    }
    return await _run("manage.py", *arguments, environment=environment, quiet=quiet)


async def pytest_django(databases: Databases, *arguments: str) -> str:
    """What pytest prints in the project with these databases; a warning is an error."""
    environment = {"PROJECT_DATABASES": json.dumps(databases)}
    options = ("-c", "pytest.ini", "--rootdir", ".", "-W", "error", "-p", "no:cacheprovider")
    return await _run("-m", "pytest", *options, *arguments, environment=environment, quiet=True)


async def upgrade(url: str) -> str:
    """What `pgchannels upgrade` prints for this database."""
    return await _run("-m", "pgchannels", "upgrade", "--url", url, environment={}, quiet=True)


async def _run(*arguments: str, environment: dict[str, str], quiet: bool) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", *arguments),
        cwd=PROJECT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "settings"} | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await communicate(process)
    if process.returncode or (stderr and quiet):
        raise CommandFailed(f"{arguments} ended with {process.returncode}\n{stdout.decode()}\n{stderr.decode()}")
    return stdout.decode()
