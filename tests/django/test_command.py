"""`manage.py pgchannels` is the command line of the package, on the project's database."""

import pytest

from tests.support.django_databases import django_database, has_tables
from tests.support.django_processes import CommandFailed, manage


async def test_upgrade_makes_the_tables_in_the_database_of_the_layer(empty_database_url: str) -> None:
    databases = {"default": {}, "messages": django_database(empty_database_url)}
    assert "were created" in await manage(databases, "pgchannels", "upgrade", alias="messages")
    assert await has_tables(empty_database_url)
    assert "no issues" in await manage(databases, "check", "--database", "messages", alias="messages")


async def test_database_and_schema_can_be_chosen(owner_url: str, empty_database_url: str) -> None:
    databases = {"default": django_database(owner_url), "messages": django_database(empty_database_url)}
    await manage(databases, "pgchannels", "upgrade", "--database", "messages", "--schema", "chat")
    assert await has_tables(empty_database_url, schema="chat")
    await manage(databases, "pgchannels", "upgrade", "--url", empty_database_url)
    assert await has_tables(empty_database_url)


async def test_failure_is_one_sentence() -> None:
    nowhere = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "127.0.0.1", "PORT": 1}
    for arguments, text in (
        (("upgrade",), "CommandError: cannot reach the database"),
        (("upgrade", "--database", "other"), "CommandError: 'other' is no alias of DATABASES"),
        ((), "the following arguments are required: COMMAND"),
    ):
        with pytest.raises(CommandFailed, match=text) as failure:
            await manage({"default": nowhere}, "pgchannels", *arguments)
        assert "Traceback" not in str(failure.value)
