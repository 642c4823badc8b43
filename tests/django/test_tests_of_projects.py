"""A project's own tests with the layer: nothing leaks from one to the next, and the test database can be dropped.

In the project nobody ever closes a layer. Should a connection stay, DROP DATABASE fails, and with it the command.
"""

from pathlib import Path
from typing import Final

import asyncpg
import pytest

from tests.support.django_databases import django_database
from tests.support.django_processes import Databases, Layers, manage, pytest_django
from tests.support.snippets import snippet

GUIDE: Final = "docs/how-to/django.md"
# What a project writes with the helpers of the guide.
TESTS_OF_GUIDE: Final = """
from said import leave_much_behind, say_and_read

class SayTests(ChatTests):
    def test_first(self):
        assert say_and_read(self.client, "first") == {"thumbnails": ["first"], "archive": ["first"]}
        leave_much_behind(self.client)

    test_second = test_first

@pytest.mark.parametrize("number", range(2))
def test_function(client, number):
    assert say_and_read(client, "text") == {"thumbnails": ["text"], "archive": ["text"]}
    leave_much_behind(client)
"""


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


async def test_tests_may_use_each_database_of_the_layer(empty_database_url: str, databases: Databases) -> None:
    default = databases["default"]
    databases["two"] = default | {"NAME": "of_no_use", "TEST": {"NAME": f"{default['TEST']['NAME']}_two"}}
    layers: Layers = {"default": {"CONFIG": {"databases": ["default", "two"]}}}
    await manage(databases, "test", "servers_checks", layers=layers, quiet=False)
    assert await databases_for_tests(empty_database_url, databases) == []


async def test_live_server_and_its_test_share_a_layer(empty_database_url: str, databases: Databases) -> None:
    await manage(databases, "test", "live_checks", quiet=False)
    assert await databases_for_tests(empty_database_url, databases) == []


async def test_tests_of_pytest_django_in_two_processes_leave_nothing_to_each_other(
    empty_database_url: str, databases: Databases
) -> None:
    assert "5 passed" in await pytest_django(databases, "-n2", "pytest_checks.py")
    assert await databases_for_tests(empty_database_url, databases) == []


async def test_tests_of_the_guide_leave_nothing_to_each_other(
    empty_database_url: str, databases: Databases, tmp_path: Path
) -> None:
    blocks = [snippet(GUIDE, text) for text in ("class ChatTests", "conftest.py")]
    (tmp_path / "test_guide.py").write_text("\n".join([*blocks, TESTS_OF_GUIDE]))
    assert "4 passed" in await pytest_django(databases, str(tmp_path / "test_guide.py"))
    assert await databases_for_tests(empty_database_url, databases) == []
