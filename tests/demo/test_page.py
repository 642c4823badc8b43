"""What the page does when servers come and go."""

import os
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import Tab, chromium, shows
from tests.support.programs import LIMIT_SECONDS, chat, free_port


@pytest.fixture
def browser(empty_database_url: str) -> Iterator[Browser]:
    # After the database: playwright's event loop runs while a browser is open, and fixtures have loops of their own.
    with chromium() as browser:
        yield browser


def test_page_reconnects_by_itself_and_reads_what_it_missed(browser: Browser, empty_database_url: str) -> None:
    port = free_port()
    tab, other = Tab(browser, port), Tab(browser, port)
    with chat("fastapi_chat", empty_database_url, port) as program:
        tab.join("Ada")
        tab.say("before")
        tab.shows_message("before", author="Ada", badge="FastAPI")
        tab.page.context.set_offline(True)  # keeps new connections from being made, not the old one from ending
        os.kill(program.pid, signal.SIGKILL)
        tab.shows_state("disconnected")
        expect(tab.page.get_by_role("button", name="Send")).to_be_disabled()
    with chat("fastapi_chat", empty_database_url, port):
        other.join("Alan")
        other.say("meanwhile")
        other.shows_message("meanwhile", author="Alan", badge="FastAPI")
        tab.page.context.set_offline(False)
        tab.shows_state("connected")
        tab.shows_message("meanwhile", author="Alan", badge="FastAPI")
        tab.shows_message("before", author="Ada", badge="FastAPI")


def test_people_of_a_process_that_died_are_dropped(browser: Browser, empty_database_url: str) -> None:
    fastapi, django = free_port(), free_port()
    ada, grace = Tab(browser, fastapi), Tab(browser, django)
    with chat("fastapi_chat", empty_database_url, fastapi):
        ada.join("Ada")
        with chat("django_chat", empty_database_url, django) as program:
            grace.join("Grace")
            ada.shows_people("django", "Grace")
            os.kill(program.pid, signal.SIGKILL)
        ada.shows_people("django")
        ada.shows_people("fastapi", "Ada")


def test_markup_stays_text(browser: Browser, empty_database_url: str) -> None:
    port = free_port()
    name, text = "<b>Eve</b>", "<img src=x onerror=\"document.title='broken'\">"
    with chat("fastapi_chat", empty_database_url, port):
        tab = Tab(browser, port)
        tab.join(name)
        tab.say(text)
        tab.shows_message(text, author=name, badge="FastAPI")
        tab.shows_people("fastapi", name)
        assert tab.page.locator("#chat img, #chat b").count() == 0
        assert tab.page.title() == "#lobby · FastAPI"


def test_page_is_usable_by_keyboard_and_by_name(browser: Browser, empty_database_url: str) -> None:
    port = free_port()
    with chat("fastapi_chat", empty_database_url, port):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.keyboard.type("Ada")  # the name is selected, the room is filled in
        page.keyboard.press("Enter")
        shows(page.locator("html[data-state=connected]"))
        page.keyboard.type("typed at once")
        page.keyboard.press("Enter")
        expect(page.get_by_role("log", name="Messages")).to_contain_text("typed at once", timeout=LIMIT_SECONDS * 1000)
        expect(page.get_by_role("status")).to_have_text("Connected")


def test_narrow_page_needs_no_sideways_scrolling(browser: Browser, empty_database_url: str) -> None:
    port = free_port()
    with chat("fastapi_chat", empty_database_url, port):
        tab = Tab(browser, port)
        tab.page.set_viewport_size({"width": 320, "height": 568})
        tab.join("A name as long as it may be, forty chars")
        tab.say("unbreakable" * 30)
        tab.shows_message("unbreakable", author="A name", badge="FastAPI")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 320
        assert tab.page.evaluate("document.getElementById('messages').scrollWidth") <= 320


@pytest.mark.parametrize(("example", "name"), [("fastapi_chat", "FastAPI"), ("django_chat", "Django")])
def test_page_to_join_says_what_it_is_and_on_which_server(
    browser: Browser, empty_database_url: str, example: str, name: str
) -> None:
    port = free_port()
    with chat(example, empty_database_url, port):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        shows(page.get_by_role("heading", name=f"Join the chat {name}"))
        shows(page.get_by_text(f"You are on the {name} server."))
        shows(page.locator("#join").get_by_role("link", name="pgchannels"))
        expect(page.get_by_role("alert")).to_be_hidden()


def test_refused_room_and_name_say_why(browser: Browser, empty_database_url: str) -> None:
    port = free_port()
    with chat("fastapi_chat", empty_database_url, port):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/?room=a%20b&name=Ada")
        expect(page.get_by_role("alert")).to_contain_text("“a b” cannot be a room")
        page.goto(f"http://127.0.0.1:{port}/?room=lobby&name={'x' * 41}")
        expect(page.get_by_role("alert")).to_contain_text("This name is too long")


def test_messages_of_one_person_in_a_row_share_a_header(browser: Browser, empty_database_url: str) -> None:
    port = free_port()
    with chat("fastapi_chat", empty_database_url, port):
        ada, alan = Tab(browser, port), Tab(browser, port)
        ada.join("Ada")
        alan.join("Alan")
        for tab, text in ((ada, "one"), (ada, "two"), (alan, "three"), (ada, "four")):
            tab.say(text)
            shows(alan.page.locator("#messages li.message").filter(has_text=text))
        headers = alan.page.locator("#messages li.message .author:visible")
        expect(headers).to_have_text(["Ada", "Alan", "Ada"])


def test_countdown_to_the_next_attempt_counts(browser: Browser, empty_database_url: str) -> None:
    port = free_port()
    with chat("fastapi_chat", empty_database_url, port):
        tab = Tab(browser, port)
        tab.join("Ada")
    status = tab.page.get_by_role("status")
    for seconds in (3, 2, 1):  # after some failures a pause takes as long
        expect(status).to_have_text(f"Connection lost, trying again in {seconds} s", timeout=LIMIT_SECONDS * 1000)
