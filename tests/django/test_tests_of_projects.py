"""A project's own tests with the layer: nothing leaks from one to the next, and the test database can be dropped.

In the project nobody ever closes a layer. Should a connection stay, DROP DATABASE fails, and with it the command.
"""

import asyncpg
import pytest

from .databases import django_database
from .processes import Databases, manage, pytest_django


@pytest.fixture
def databases(empty_database_url: str) -> Databases:
    """The databases of a project: one, whose database for tests has a name that no other project's has."""
    database = django_database(empty_database_url)
    return {"default": database | {"TEST": {"NAME": f"test_{database['NAME']}"}}}


async def databases_for_tests(url: str, databases: Databases) -> list[str]:
    """The databases for tests that are left."""
    connection = await asyncpg.connect(url)
    try:
        name = f"{databases['default']['TEST']['NAME']}%"
        return [
            name for (name,) in await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE $1", name)
        ]
    finally:
        await connection.close()


@pytest.mark.parametrize("options", [(), ("--parallel", "2")], ids=["one process", "two processes"])
async def test_tests_of_views_leave_nothing_to_each_other(
    empty_database_url: str, databases: Databases, options: tuple[str, ...]
) -> None:
    await manage(databases, "test", *options, "views_checks", quiet=False)
    assert await databases_for_tests(empty_database_url, databases) == []


async def test_live_server_and_its_test_share_a_layer(empty_database_url: str, databases: Databases) -> None:
    await manage(databases, "test", "live_checks", quiet=False)
    assert await databases_for_tests(empty_database_url, databases) == []


async def test_tests_of_pytest_django_in_two_processes_leave_nothing_to_each_other(
    empty_database_url: str, databases: Databases
) -> None:
    assert "5 passed" in await pytest_django(databases, "-n2", "pytest_checks.py")
    assert await databases_for_tests(empty_database_url, databases) == []
