"""One PostgreSQL for the run, one template database with the schema, one clone of it for each test."""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import make_url

from pgchannels import MessageLayer
from pgchannels.database import migrations
from pgchannels.database.grants import grant
from pgchannels.embedded import EmbeddedServer

# A shell's background job ignores SIGINT, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast a machine is, is no property.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# What takes long: real faults, processes, servers and browsers.
SLOW_SUITES = (
    "chaos",
    "demo",
    "django",
    "docs",
    "doors",
    "embedded",
    "examples",
    "faults",
    "patroni",
    "processes",
    "rolling",
    "servers",
    "transactions",
    "wheel",
)
_CHOSEN = "PGCHANNELS_TEST_SUITES"  # for the processes of the run


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the choice of suites."""
    parser.addoption("--slow", action="store_true", help=f"run the slow suites instead: {', '.join(SLOW_SUITES)}")


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many as there are cores: tests wait for servers and other processes."""
    return 2 * (os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """Choose, where no path does."""
    if not hasattr(config, "workerinput"):
        is_chosen_by_path = config.args_source is pytest.Config.ArgsSource.ARGS
        os.environ[_CHOSEN] = "named" if is_chosen_by_path else "slow" if config.getoption("--slow") else "quick"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what was not chosen."""
    if collection_path.parent != Path(__file__).parent or not collection_path.is_dir():
        return None
    is_slow, chosen = collection_path.name in SLOW_SUITES, os.environ.get(_CHOSEN)
    return True if chosen in {"slow", "quick"} and is_slow != (chosen == "slow") else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out."""
    if os.environ.get(_CHOSEN) == "quick":
        terminalreporter.write_line(f"slow suites not run: {', '.join(SLOW_SUITES)} (`pytest --slow` runs them)")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A database of the server from which others can be created: PGCHANNELS_TEST_URL, or an embedded server."""
    if url := os.environ.get("PGCHANNELS_TEST_URL"):
        yield url
        return
    with EmbeddedServer() as server:
        yield server.url()


@pytest.fixture(scope="session")
def application_role(server_url: str) -> Iterator[str]:
    """A role without any privilege of its own, for applications."""
    name = f"pgchannels_application_{secrets.token_hex(4)}"
    asyncio.run(_execute(server_url, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'"))
    yield name
    asyncio.run(_execute(server_url, f"DROP ROLE {name}"))


@pytest.fixture(scope="session")
def template_name(server_url: str, application_role: str) -> Iterator[str]:
    """A database with the schema, for others to be cloned from."""
    name = f"pgchannels_template_{secrets.token_hex(4)}"
    asyncio.run(_execute(server_url, f'CREATE DATABASE "{name}"'))
    asyncio.run(migrations.upgrade(url_of_database(server_url, name)))
    asyncio.run(grant(url_of_database(server_url, name), application_role))
    yield name
    asyncio.run(_drop(server_url, name))


@pytest.fixture
def owner_url(server_url: str, template_name: str) -> Iterator[str]:
    """A fresh database with the schema, for the role that owns the schema."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield url


@pytest.fixture
def database_url(owner_url: str, application_role: str) -> str:
    """A fresh database with the schema, for a role that has what `pgchannels upgrade --grant-to` gives and no more."""
    return url_of_role(owner_url, application_role)


@pytest.fixture
def empty_database_url(server_url: str) -> Iterator[str]:
    """A fresh database without the schema."""
    with new_database(server_url, "TEMPLATE template0") as url:
        yield url


@pytest.fixture
async def layer(database_url: str) -> AsyncIterator[MessageLayer]:
    """An open layer on a fresh database."""
    async with MessageLayer(database_url) as layer:
        yield layer


@pytest.fixture
async def other_layer(database_url: str) -> AsyncIterator[MessageLayer]:
    """A second node on the same database."""
    async with MessageLayer(database_url) as layer:
        yield layer


@pytest.fixture
async def connection(owner_url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A plain connection to the database of the test, as the owner."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def stranger_url(connection: "asyncpg.Connection[asyncpg.Record]", owner_url: str) -> AsyncIterator[str]:
    """The database of the test for a role that may connect to it, and has no other privilege."""
    role = f"pgchannels_stranger_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{role}'")
    yield url_of_role(owner_url, role)
    await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.fixture
async def stranger(stranger_url: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection of the stranger."""
    connection = await asyncpg.connect(stranger_url)
    yield connection
    await connection.close()


def url_of_database(server_url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def url_of_role(url: str, role: str) -> str:
    """The URL of the same database for another role, whose password is its name."""
    return make_url(url).set(username=role, password=role).render_as_string(hide_password=False)


@contextmanager
def new_database(server_url: str, origin: str) -> Iterator[str]:
    """A database of one's own, by its URL; `origin` is its template."""
    name = f"pgchannels_test_{secrets.token_hex(4)}"
    asyncio.run(_execute(server_url, f'CREATE DATABASE "{name}" {origin}'))
    try:
        yield url_of_database(server_url, name)
    finally:
        asyncio.run(_drop(server_url, name))


async def _drop(server_url: str, name: str) -> None:
    await _execute(server_url, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
