"""Nodes, groups and work queues in Django's admin."""

import pytest

from tests.support.django_databases import django_database
from tests.support.django_processes import Databases, manage

SETTINGS = "--settings=admin_settings"


@pytest.fixture
def databases(empty_database_url: str) -> Databases:
    """The databases of a project: one, empty."""
    database = django_database(empty_database_url)
    return {"default": database | {"TEST": {"NAME": f"test_{database['NAME']}"}}}


@pytest.mark.parametrize("schema", ["pgchannels", "chat"])
async def test_pages_show_what_is_in_the_schema_of_the_layer(databases: Databases, schema: str) -> None:
    await manage(databases, "test", SETTINGS, "admin_checks", schema=schema, quiet=False)


@pytest.mark.parametrize("schema", ["pgchannels", "chat"])
async def test_models_of_the_pages_need_no_migration(databases: Databases, schema: str) -> None:
    assert "No changes detected" in await manage(databases, "makemigrations", SETTINGS, "--check", schema=schema)
