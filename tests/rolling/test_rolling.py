"""This version and the one before it, side by side on the tables of this one, under traffic all the time."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from pgchannels.database import migrations
from pgchannels.database.revision import REVISIONS
from tests.conftest import url_of_role
from tests.rolling.crew import Crew, upgrade
from tests.rolling.old_version import unpack
from tests.support.waiting import until

FUNCTIONS = """
SELECT p.oid::regprocedure::text AS name, pg_get_functiondef(p.oid) AS text FROM pg_proc AS p
WHERE p.pronamespace = 'pgchannels'::regnamespace ORDER BY 1
"""
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
WHERE table_schema = 'pgchannels' ORDER BY 1, 2
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the version before."""
    return unpack(tmp_path_factory.mktemp("old"))


async def more(connection: "asyncpg.Connection[asyncpg.Record]", batches: int = 200) -> None:
    """Return once so many further batches were sent."""
    last = "SELECT last_value FROM pgchannels.message_id"
    before = await connection.fetchval(last)

    async def enough() -> bool:
        return bool(await connection.fetchval(last) >= before + 512 * batches)

    await until(enough)


async def test_upgrade_from_the_version_before_makes_what_this_version_makes(
    empty_database_url: str, owner_url: str, old: Path
) -> None:
    await upgrade(empty_database_url, old)
    await migrations.upgrade(empty_database_url)
    found = []
    for url in (empty_database_url, owner_url):
        connection = await asyncpg.connect(url)
        found.append([list(await connection.fetch(query)) for query in (FUNCTIONS, COLUMNS)])
        await connection.close()
    assert found[0] == found[1]


async def test_both_versions_miss_nothing_while_the_tables_are_upgraded_and_go_back(
    empty_database_url: str, application_role: str, old: Path
) -> None:
    await upgrade(empty_database_url, old, "--grant-to", application_role)
    connection = await asyncpg.connect(empty_database_url)
    reading = await asyncpg.connect(empty_database_url)
    async with Crew(url_of_role(empty_database_url, application_role), old) as crew:
        first = await crew.add("old-1", "old-2")
        await more(connection)

        async with reading.transaction():
            await reading.fetchval("SELECT count(*) FROM pgchannels.message, pgchannels.subscription, pgchannels.lease")
            upgrading = asyncio.create_task(migrations.upgrade(empty_database_url))
            await more(connection)
            assert not upgrading.done()
        assert await upgrading == ("0001", REVISIONS[-1])

        *newer, third = await crew.add("new-1", "new-2", "old-3")
        await more(connection)
        await crew.finish(newer)
        await more(connection)

        before, _ = await migrations.downgrade(empty_database_url, revision="0001", may_lose=True)
        assert before == REVISIONS[-1]
        await more(connection)
        await crew.finish([*first, third])
        assert await migrations.upgrade(empty_database_url) == ("0001", REVISIONS[-1])
        await crew.verify()
    await reading.close()
    await connection.close()
