"""The chat page in a headless Chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.support.programs import LIMIT_SECONDS

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser until the end of the block."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("there is no chromium on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of the chat, in a context of its own."""

    def __init__(self, browser: Browser, port: int) -> None:
        self.page: Page = browser.new_context().new_page()
        self.page.set_default_timeout(LIMIT_SECONDS * 1000)
        self._address = f"http://127.0.0.1:{port}/"

    def join(self, name: str, *, room: str = "lobby") -> None:
        """Enter a room, and return when the page is connected."""
        self.page.goto(f"{self._address}?{urlencode({'room': room, 'name': name})}")
        self.shows_state("connected")

    def say(self, text: str) -> None:
        """Write a message and send it as a person does."""
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.get_by_role("button", name="Send").click()

    def shows_state(self, state: str) -> None:
        shows(self.page.locator(f"html[data-state={state}]"))

    def shows_message(self, text: str, *, author: str, badge: str) -> None:
        """The message is there once, with this author and the badge of this server."""
        message = self.page.locator("#messages li.message").filter(has_text=text)
        expect(message).to_have_count(1, timeout=LIMIT_SECONDS * 1000)
        shows(message.locator(".author", has_text=author))
        shows(message.locator(".badge", has_text=badge))

    def shows_people(self, server: str, *names: str) -> None:
        """Exactly these people are listed under the one process of this server."""
        listed = self.page.locator(f"#people section[data-server={server}] .name")
        expect(listed).to_have_text(list(names), timeout=LIMIT_SECONDS * 1000)

    def shows_orders(self, *orders: str) -> None:
        """Exactly these rows of the demo's table are there, each with its item and amount, in this order."""
        expect(self.page.locator("#orders tr")).to_have_text(list(orders), timeout=LIMIT_SECONDS * 1000)


def shows(locator: Locator) -> None:
    """What the locator finds is there, once, and visible; the root element counts as that."""
    expect(locator).to_be_visible(timeout=LIMIT_SECONDS * 1000)


def fits_a_phone(page: Page) -> None:
    """The page needs no sideways scrolling there."""
    page.set_viewport_size({"width": 375, "height": 667})
    assert page.evaluate("document.documentElement.scrollWidth") == 375
