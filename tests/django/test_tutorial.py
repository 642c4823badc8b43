"""The chat of Django Channels' tutorial, with no other change than the layer in its settings."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium
from tests.support.django_servers import HERE, daphne, manage
from tests.support.programs import LIMIT_SECONDS

CHAT = "mysite.asgi:application"


@pytest.fixture
def project(tmp_path: Path, database_url: str) -> Path:
    """A copy of the project, with the tables that Django's sessions want in its SQLite database."""
    folder = shutil.copytree(HERE / "tutorial", tmp_path / "tutorial")
    manage("migrate", folder=folder, url=database_url)
    return folder


def enter(browser: Browser, port: int, room: str) -> Page:
    """Choose a room on the first page; returns its page, connected."""
    page = browser.new_page()
    page.set_default_timeout(LIMIT_SECONDS * 1000)
    page.goto(f"http://127.0.0.1:{port}/chat/")
    page.get_by_label("Room").fill(room)
    page.keyboard.press("Enter")
    expect(page.locator("html[data-state=connected]")).to_be_visible(timeout=LIMIT_SECONDS * 1000)
    return page


def say(page: Page, text: str) -> None:
    """Write a message and send it."""
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def shows(page: Page, log: str) -> None:
    """The page comes to show these lines, no less and no more."""
    expect(page.locator("#chat-log")).to_have_value(log, timeout=LIMIT_SECONDS * 1000)


def test_pages_of_two_daphne_processes_meet_in_one_room(project: Path, database_url: str) -> None:
    with (
        daphne(CHAT, folder=project, url=database_url) as one,
        daphne(CHAT, folder=project, url=database_url) as other,
        chromium() as browser,
    ):
        ada, grace, alan = enter(browser, one, "lobby"), enter(browser, other, "lobby"), enter(browser, other, "attic")
        say(ada, "hello")
        for page in (ada, grace):
            shows(page, "hello\n")
        say(grace, "hello yourself")
        for page in (ada, grace):
            shows(page, "hello\nhello yourself\n")
        say(alan, "anybody here?")
        shows(alan, "anybody here?\n")


def test_reader_who_tries_the_layer_in_a_shell_gets_the_message_back(project: Path, database_url: str) -> None:
    trying = (
        "from asgiref.sync import async_to_sync; from channels.layers import get_channel_layer; "
        "layer = get_channel_layer(); async_to_sync(layer.send)('test_channel', {'type': 'hello'}); "
        "print(async_to_sync(layer.receive)('test_channel'))"
    )
    assert "{'type': 'hello'}" in manage("shell", "-c", trying, folder=project, url=database_url).splitlines()
