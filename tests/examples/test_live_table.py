"""The live table in Chromium, while rows change by SQL and the server is killed."""

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import chromium, fits_a_phone
from tests.support.programs import (
    EXAMPLES,
    LIMIT_SECONDS,
    Program,
    answers,
    commands_of,
    eventually,
    free_port,
    run,
    running,
    with_port,
)

FOLDER = EXAMPLES / "live_table"
MILLISECONDS = LIMIT_SECONDS * 1000


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """One without an event loop: Playwright has one in that of the test."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


@contextmanager
def server(port: int, environment: dict[str, str]) -> Iterator[Program]:
    """The server as the README starts it, on a port of its own."""
    serve = next(command for command in commands_of("live_table") if command[0] == "uvicorn")
    with running(with_port(serve, port), folder=FOLDER, environment=environment) as program:
        eventually(lambda: answers(port) or program.process.poll() is not None)
        assert program.process.poll() is None, program.text()
        yield program


@pytest.fixture
def environment(empty_database_url: str) -> dict[str, str]:
    """The database, prepared by the commands of the README."""
    environment = {"PGCHANNELS_URL": empty_database_url}
    for command in commands_of("live_table")[:3]:
        run(command, folder=FOLDER, environment=environment)
    return environment


def test_page_shows_the_table_while_it_changes_and_the_server_is_killed(
    environment: dict[str, str], page: Page, thread: ThreadPoolExecutor
) -> None:
    url, port = environment["PGCHANNELS_URL"], free_port()

    def change(*statements: str) -> None:
        """Change the table as any SQL client does."""
        thread.submit(asyncio.run, execute(url, statements)).result(LIMIT_SECONDS)

    def shows_the_table() -> None:
        rows = thread.submit(asyncio.run, rows_of(url)).result(LIMIT_SECONDS)
        expect(page.locator("tbody tr")).to_have_text(rows, timeout=MILLISECONDS)

    change("INSERT INTO orders (customer, item) SELECT 'c' || n, 'item' FROM generate_series(1, 5) AS n")
    with server(port, environment) as program:
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("body[data-state=connected]")).to_be_visible(timeout=MILLISECONDS)
        shows_the_table()
        change("UPDATE orders SET is_shipped = true WHERE id = 2", "DELETE FROM orders WHERE id = 3")
        shows_the_table()
        program.process.kill()
    change(
        "INSERT INTO orders (customer, item) VALUES ('while it was away', 'x')",
        "UPDATE orders SET id = 90 WHERE id = 1",
    )
    for how in (signal.SIGTERM, signal.SIGKILL):
        with server(port, environment) as program:
            shows_the_table()
            change("INSERT INTO orders (customer, item) SELECT 'more', 'item' FROM generate_series(1, 50) AS n")
            program.process.send_signal(how)  # while changes are on their way
            change("DELETE FROM orders WHERE id % 3 = 0")
            program.end()
        change("UPDATE orders SET item = 'changed' WHERE id % 5 = 0")
    with server(port, environment):
        shows_the_table()
        fits_a_phone(page)
        change("TRUNCATE orders")
        expect(page.locator("tbody tr")).to_have_count(0, timeout=MILLISECONDS)


async def execute(url: str, statements: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def rows_of(url: str) -> list[Any]:
    """The table, as the page shows it."""
    connection = await asyncpg.connect(url)
    rows = await connection.fetch("SELECT id, customer, item, is_shipped FROM orders ORDER BY id")
    await connection.close()
    return [f"{row[0]}{row[1]}{row[2]}{'yes' if row[3] else 'no'}" for row in rows]
