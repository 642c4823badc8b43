"""Servers and programs of the projects in `tests/django`, each in a process of its own."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.django_databases import django_database
from tests.support.programs import Program, answers, eventually, free_port, run, running

HERE = Path(__file__).parents[1] / "django"
ROOT = HERE.parents[1]
LOOPBACK = "127.0.0.1"
_STRICT_PYTHON = (sys.executable, "-X", "dev", "-W", "error")


def environment_of(url: str) -> dict[str, str]:
    """What the settings of the projects read: the database, as a URL and as Django writes it down."""
    return {
        "PGCHANNELS_URL": url,
        "PROJECT_DATABASE": json.dumps(django_database(url)),
        "PYTHONPATH": str(ROOT),
    }


@contextmanager
def daphne(application: str, *, folder: Path, url: str) -> Iterator[int]:
    """The port of a daphne process that serves the application of a project."""
    with _serving(
        "daphne", "--bind", LOOPBACK, application, says="Listening on TCP address", folder=folder, url=url
    ) as port:
        yield port


@contextmanager
def uvicorn(application: str, *, folder: Path, url: str) -> Iterator[int]:
    """The port of a uvicorn process that serves the application of a project."""
    with _serving(
        "uvicorn", "--host", LOOPBACK, application, says="Uvicorn running on", folder=folder, url=url
    ) as port:
        yield port


@contextmanager
def _serving(*command: str, says: str, folder: Path, url: str) -> Iterator[int]:
    port = free_port()
    with running([*command, "--port", str(port)], folder=folder, environment=environment_of(url)) as program:
        program.line(says)
        yield port


@contextmanager
def runserver(*, folder: Path, url: str) -> Iterator[int]:
    """The port of Django's own server, which has a thread for each request and knows WSGI alone."""
    port = free_port()
    command = [sys.executable, "manage.py", "runserver", "--noreload", f"{LOOPBACK}:{port}"]
    with running(command, folder=folder, environment=environment_of(url)):
        eventually(lambda: answers(port))
        yield port


@contextmanager
def runworker(*channels: str, folder: Path, url: str) -> Iterator[Program]:
    """A `manage.py runworker` for these channels; what is sent before it is ready waits for it."""
    command = [sys.executable, "manage.py", "runworker", *channels]
    with running(command, folder=folder, environment=environment_of(url)) as program:
        yield program


def manage(*arguments: str, folder: Path, url: str) -> str:
    """What `manage.py` writes in a project; it must end well, and a warning is an error."""
    return run([*_STRICT_PYTHON, "manage.py", *arguments], folder=folder, environment=environment_of(url))


def script(name: str, *, folder: Path, url: str, settings: str) -> str:
    """What a script of a project writes; it must end well, and a warning is an error."""
    environment = environment_of(url) | {"DJANGO_SETTINGS_MODULE": settings}
    return run([*_STRICT_PYTHON, name], folder=folder, environment=environment)


BACKGROUND = HERE / "background"


CHANNELS = ("thumbnails-generate", "thumbnails-delete")
