"""Both shops, started by the commands of their READMEs: an order and its notification exist together, or not at all."""

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import asyncpg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import new_database
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

MILLISECONDS = LIMIT_SECONDS * 1000
SHOPS = {"fastapi_orders": ("uvicorn", "orders"), "django_orders": ("daphne", "shop_order")}


class Shop:
    """A running shop and its database."""

    def __init__(self, example: str, url: str, port: int) -> None:
        self.example = example
        self.url = url
        self.port = port

    def order(self, item: str, *, customer: str = "Ada") -> int:
        """Order as the README's `curl` does; returns the status."""
        [curl] = [command for command in commands_of(self.example) if command[0] == "curl"]
        path = re.sub(r".*:\d+", "", curl[-1]).replace("=Ada", f"={customer}").replace("=lamp", f"={item}")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_SECONDS)
        connection.request("POST", path)
        response = connection.getresponse()
        assert set(json.loads(response.read())) == ({"number"} if response.status == 201 else {"detail"})
        connection.close()
        return response.status

    def numbers(self) -> list[int]:
        """The orders that are stored; in a thread without an event loop, because Playwright has one in this."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, _numbers(self.url, SHOPS[self.example][1])).result(LIMIT_SECONDS)


async def _numbers(url: str, table: str) -> list[int]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(f"SELECT id FROM {table} ORDER BY id")
    await connection.close()
    return [row[0] for row in rows]


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest, server_url: str) -> Iterator[Shop]:
    """The shop as its README starts it, on a port of its own, once it serves its page."""
    example, port = request.param, free_port()
    with new_database(server_url, "TEMPLATE template0") as url:
        environment = {"PGCHANNELS_URL": url}
        before, serve = _commands(example)
        for command in before:
            run(command, folder=EXAMPLES / example, environment=environment)
        with running(with_port(serve, port), folder=EXAMPLES / example, environment=environment) as program:
            eventually(lambda: answers(port) or program.process.poll() is not None)
            assert program.process.poll() is None, program.text()
            yield Shop(example, url, port)


def _commands(example: str) -> tuple[list[list[str]], list[str]]:
    """Those before the server's, and the server's."""
    commands = commands_of(example)
    [index] = [index for index, command in enumerate(commands) if command[0] == SHOPS[example][0]]
    return commands[:index], commands[index]


@pytest.fixture
def browser(shop: Shop) -> Iterator[Browser]:
    # After the database: Playwright's event loop runs while a browser is open.
    with chromium() as browser:
        yield browser


@pytest.fixture
def mailer(shop: Shop) -> Iterator[Program]:
    [mail] = [command for command in commands_of(shop.example) if "mailer.py" in command]
    environment = {"PGCHANNELS_URL": shop.url}
    with running(mail, folder=EXAMPLES / shop.example, environment=environment) as program:
        program.line("waits for orders")
        yield program


def opened(browser: Browser, shop: Shop) -> Page:
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{shop.port}/")
    expect(page.locator("body[data-state=connected]")).to_be_visible(timeout=MILLISECONDS)
    return page


def order(page: Page, customer: str, item: str, *, says: str) -> None:
    page.get_by_label("Customer").fill(customer)
    page.get_by_label("Item").select_option(item)
    page.get_by_role("status").evaluate("element => { element.textContent = '' }")
    page.get_by_role("button", name="Order").click()
    expect(page.get_by_role("status")).to_have_text(says, timeout=MILLISECONDS)


def shows(page: Page, notifications: list[str]) -> None:
    """The page shows exactly these, the newest first."""
    expect(page.locator("li")).to_have_text(notifications, timeout=MILLISECONDS)


def test_pages_show_the_notification_of_an_order_and_none_of_a_refused_one(browser: Browser, shop: Shop) -> None:
    ada, alan = opened(browser, shop), opened(browser, shop)
    order(ada, "Ada", "lamp", says="Ordered.")
    order(alan, "Alan", "lamp", says="Ordered.")
    order(ada, "Ada", "lamp", says="Refused: there is no lamp left")
    order(alan, "Alan's cat", "book", says="Ordered.")
    for page in (ada, alan):
        shows(page, ["Order 4: book for Alan's cat", "Order 2: lamp for Alan", "Order 1: lamp for Ada"])
        expect(page.locator("option")).to_have_text(["lamp (0 left)", "book (99 left)"], timeout=MILLISECONDS)
        fits_a_phone(page)
    assert shop.numbers() == [1, 2, 4]


def test_order_of_no_customer_and_of_no_item_is_refused(shop: Shop) -> None:
    assert shop.order("lamp", customer="") == 422
    assert shop.order("lamp", customer="%00") == 422
    assert shop.order("lamp", customer="x" * 41) == 422
    assert shop.order("unicorn") in {409, 422}
    assert shop.numbers() == []


@pytest.mark.parametrize("shop", ["fastapi_orders"], indirect=True)
def test_worker_gets_the_mail_of_an_order_and_none_of_a_refused_one(shop: Shop, mailer: Program) -> None:
    assert [shop.order(item) for item in ("lamp", "lamp", "lamp", "book")] == [201, 201, 409, 201]
    assert [mailer.line("mails").strip() for _ in range(3)] == [f"mails Ada about order {n}" for n in (1, 2, 4)]


@pytest.mark.parametrize("example", SHOPS)
def test_missing_url_is_named(example: str) -> None:
    command = with_port(_commands(example)[1], free_port())
    with running(command, folder=EXAMPLES / example, environment={"PGCHANNELS_URL": ""}) as program:
        assert program.end() != 0
    assert "set PGCHANNELS_URL" in program.text()
