"""The page of the example in Chromium, while its server is killed and restarted."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from pgchannels import MessageLayer
from tests.support.browser import chromium
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

EXAMPLE = "browser_client"
WAYS = ("events", "websocket")
MILLISECONDS = LIMIT_SECONDS * 1000


@contextmanager
def server(port: int, database_url: str) -> Iterator[Program]:
    """The server as the README starts it, on a port of its own."""
    [upgrade, serve] = commands_of(EXAMPLE)
    environment = {"PGCHANNELS_URL": database_url}
    run(upgrade, folder=EXAMPLES / EXAMPLE, environment=environment)
    with running(with_port(serve, port), folder=EXAMPLES / EXAMPLE, environment=environment) as program:
        eventually(lambda: answers(port) or program.process.poll() is not None)
        assert program.process.poll() is None, program.text()
        yield program


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page()


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """One without an event loop: Playwright has one in that of the test."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def is_connected(page: Page) -> None:
    for way in WAYS:
        expect(page.locator(f"#{way}[data-state=connected]")).to_be_visible(timeout=MILLISECONDS)


def shows(page: Page, texts: list[str]) -> None:
    """Both ways show exactly these, in this order."""
    for way in WAYS:
        expect(page.locator(f"#{way} li")).to_have_text(texts, timeout=MILLISECONDS)


def test_page_misses_nothing_and_shows_nothing_twice_while_its_server_is_killed(
    owner_url: str, page: Page, thread: ThreadPoolExecutor
) -> None:
    port, said = free_port(), list[str]()
    layer = MessageLayer(owner_url, expiry=600)

    def say() -> None:
        said.append(f"message {len(said)}")
        thread.submit(layer.sync.publish, "rooms.lobby", {"text": said[-1]}).result(LIMIT_SECONDS)

    with server(port, owner_url) as program:
        page.goto(f"http://127.0.0.1:{port}/")
        is_connected(page)
        program.process.kill()  # before the page has got a message
    say()
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        with server(port, owner_url) as program:
            shows(page, said)
            for _ in range(20):
                say()
            program.process.send_signal(how)  # while messages are on their way
            say()
            program.end()
        for _ in range(5):
            say()
    with server(port, owner_url):
        shows(page, said)
        page.get_by_label("Say").fill("from the page")
        page.get_by_role("button", name="Send").click()
        shows(page, [*said, "from the page"])


def test_page_is_told_that_it_is_refused(owner_url: str, page: Page) -> None:
    port = free_port()
    with server(port, owner_url):
        page.goto(f"http://127.0.0.1:{port}/?room=no room")
        expect(page.locator("#websocket[data-state=refused]")).to_be_visible(timeout=MILLISECONDS)


def test_page_comes_back_after_the_database_was_away(owner_url: str, page: Page) -> None:
    """A status ends an `EventSource` for good: the script makes another one."""
    port = free_port()
    with server(port, owner_url):
        page.route("**/rooms/*/events*", lambda route: route.fulfill(status=503))
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#websocket[data-state=connected]")).to_be_visible(timeout=MILLISECONDS)
        page.unroute("**/rooms/*/events*")
        is_connected(page)
