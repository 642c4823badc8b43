"""The tasks that publish their progress, by the commands of their README."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from tests.support.programs import EXAMPLES, Program, commands_of, run, running

FOLDER = EXAMPLES / "background_tasks"
UPGRADE, WATCH, PREFORK, THREADS = commands_of("background_tasks")
PRICES = [("book", "12.50"), ("chair", "85.00"), ("lamp", "49"), ("table", "190")]


@pytest.fixture
def environment(empty_database_url: str) -> dict[str, str]:
    """A database with the tables of pgchannels."""
    environment = {"PGCHANNELS_URL": empty_database_url}
    run(UPGRADE, folder=FOLDER, environment=environment)
    return environment


@pytest.fixture
def watcher(environment: dict[str, str]) -> Iterator[Program]:
    """The subscriber, once it listens."""
    with running(WATCH, folder=FOLDER, environment=environment) as program:
        program.line("waits for imports")
        yield program


@pytest.mark.parametrize("work", [PREFORK, THREADS], ids=["prefork", "threads"])
def test_progress_is_printed_and_what_is_rolled_back_is_never_done(
    environment: dict[str, str], watcher: Program, work: list[str]
) -> None:
    printed = run(work, folder=FOLDER, environment=environment).splitlines()
    assert printed[0] == "prices.csv: 4 prices"
    assert printed[1].startswith('broken.csv: invalid input syntax for type numeric: "a lot"')
    run([*work[:-2], "prices.csv"], folder=FOLDER, environment=environment)  # the last that the subscriber hears
    for _ in range(2):
        watcher.line("prices.csv done")
    heard = watcher.text().splitlines()
    imports = [f"prices.csv running: {rows} prices" for rows in (1, 2, 3, 4)] + ["prices.csv done: 4 prices"]
    assert [line for line in heard if line.startswith("prices.csv")] == imports * 2
    assert [line for line in heard if line.startswith("broken.csv")] == [
        "broken.csv running: 1 prices",
        "broken.csv running: 2 prices",
        'broken.csv failed: invalid input syntax for type numeric: "a lot"',
    ]
    assert asyncio.run(prices(environment["PGCHANNELS_URL"])) == PRICES


async def test_progress_is_seen_while_the_transaction_is_open_and_its_end_with_the_commit(
    environment: dict[str, str], watcher: Program
) -> None:
    url, work = environment["PGCHANNELS_URL"], [*PREFORK[:-2], "prices.csv"]
    await asyncio.to_thread(run, work, folder=FOLDER, environment=environment)
    watcher.line("prices.csv done")
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM prices WHERE item = 'chair'")
    async with connection.transaction():
        await connection.execute("UPDATE prices SET price = 0 WHERE item = 'table'")  # the last row waits for this
        with running(work, folder=FOLDER, environment=environment) as worker:
            await asyncio.to_thread(watcher.line, "prices.csv running: 3 prices")
            assert not await connection.fetchval("SELECT count(*) FROM prices WHERE item = 'chair'")
            assert watcher.text().count("done") == 1
            await connection.execute("ROLLBACK AND CHAIN")
            await asyncio.to_thread(watcher.line, "prices.csv done")
            assert worker.end() == 0, worker.text()
    await connection.close()


def test_import_whose_commit_fails_is_never_done(environment: dict[str, str], watcher: Program) -> None:
    work = [*PREFORK[:-2], "prices.csv"]
    run(work, folder=FOLDER, environment=environment)
    watcher.line("prices.csv done")
    asyncio.run(forbid_equal_prices(environment["PGCHANNELS_URL"]))
    run(work, folder=FOLDER, environment=environment)
    assert "duplicate key" in watcher.line("prices.csv failed")
    assert watcher.text().count("running: 4 prices") == 2
    assert watcher.text().count("done") == 1


async def forbid_equal_prices(url: str) -> None:
    """From the next commit on, nothing may cost as much as a table."""
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM prices WHERE item = 'table'; INSERT INTO prices VALUES ('desk', 190)")
    await connection.execute("ALTER TABLE prices ADD UNIQUE (price) DEFERRABLE INITIALLY DEFERRED")
    await connection.close()


async def prices(url: str) -> list[tuple[str, str]]:
    """What is imported."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT item, price::text FROM prices ORDER BY item")
    await connection.close()
    return [(row[0], row[1]) for row in rows]


@pytest.mark.parametrize("command", [WATCH, PREFORK], ids=["watch", "worker"])
def test_missing_url_is_named(command: list[str]) -> None:
    with running(command, folder=FOLDER, environment={"PGCHANNELS_URL": ""}) as program:
        assert program.end() != 0
    assert "set PGCHANNELS_URL" in program.text()
