"""`pgchannels demo`, from outside: what a person sees, and that nothing of it is left."""

import os
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

from pgchannels.cli import demo
from pgchannels.cli.demo_servers import DemoFailed
from tests.support.browser import Tab, chromium, shows
from tests.support.programs import (
    LIMIT_SECONDS,
    Program,
    answers,
    descendants_of,
    eventually,
    free_port,
    is_alive,
    is_free,
    run,
    running,
)

ANYWHERE = Path("/")


@contextmanager
def demo_at(port: int, *options: str, url: str = "", **environment: str) -> Iterator[Program]:
    """The demo as a program of its own; without a URL it has a database of its own."""
    command = [sys.executable, "-m", "pgchannels", "demo", "--no-browser", "--port", str(port), *options]
    with running(command, folder=ANYWHERE, environment={"PGCHANNELS_URL": url, **environment}) as program:
        yield program


@pytest.fixture
def port() -> int:
    return free_port()


def test_two_browsers_meet_in_one_room_across_both_servers(port: int) -> None:
    with chromium() as browser, demo_at(port) as program:
        assert f":{port}/" in program.line("FastAPI ")
        assert f":{port + 1}/" in program.line("Django ")
        program.line("Ctrl-C")
        ada, grace = Tab(browser, port), Tab(browser, port + 1)
        ada.join("Ada")
        grace.join("Grace")
        shows(ada.page.locator("#server", has_text="FastAPI"))
        shows(grace.page.locator("#server", has_text="Django"))
        for tab in (ada, grace):
            tab.shows_people("fastapi", "Ada")
            tab.shows_people("django", "Grace")

        ada.say("hello <i>Django</i>")
        grace.say("hello FastAPI")
        for tab in (ada, grace):
            tab.shows_message("hello <i>Django</i>", author="Ada", badge="FastAPI")
            tab.shows_message("hello FastAPI", author="Grace", badge="Django")
        shows(ada.page.locator(".message .latency").first)

        family = descendants_of(program.pid)
        assert len(family) >= 3
        program.process.send_signal(signal.SIGINT)
        assert program.end() == 0, program.text()
        assert "Traceback" not in program.text()
        assert [pid for pid in family if is_alive(pid)] == []
        assert is_free(port)
        assert is_free(port + 1)
        ada.shows_state("disconnected")


def test_rows_changed_by_sql_appear_on_the_pages_of_both_servers(port: int) -> None:
    with chromium() as browser, demo_at(port) as program:
        command = program.line("UPDATE orders").strip()
        program.line("Ctrl-C")
        tabs = [Tab(browser, port), Tab(browser, port + 1)]
        for tab in tabs:
            tab.join("Ada")
            tab.shows_orders("book2", "lamp1", "chair4")

        def change(statement: str | None = None) -> None:
            """Paste the command into a shell, perhaps with another statement."""
            pasted = command if statement is None else shlex.join([*shlex.split(command)[:-1], statement])
            run(["sh", "-c", pasted], folder=ANYWHERE, environment={})

        change()
        change()
        for tab in tabs:
            tab.shows_orders("book2", "lamp3", "chair4")
        change("INSERT INTO orders VALUES (9, '<b>stool</b>', 1); DELETE FROM orders WHERE id = 1")
        change("BEGIN; DELETE FROM orders; ROLLBACK")
        change("UPDATE orders SET id = 20 WHERE id = 3")
        late = Tab(browser, port + 1)
        late.join("Alan")
        for tab in (*tabs, late):
            tab.shows_orders("lamp3", "<b>stool</b>1", "chair4")
        change("TRUNCATE orders")
        for tab in (*tabs, late):
            tab.shows_orders()
        change(
            "INSERT INTO orders SELECT n, 'many', n FROM generate_series(1, 3000) AS n"
        )  # more than waits for a page
        for tab in tabs:
            shows(tab.page.get_by_role("row", name="more 2900"))
        change("DROP TABLE orders")
        for port_ in (port, port + 1):
            tab = Tab(browser, port_)
            tab.join("Grace")
            tab.say("where is the table?")
            tab.shows_orders()


def test_table_fits_a_narrow_page(port: int) -> None:
    with chromium() as browser, demo_at(port) as program:
        command = program.line("UPDATE orders").strip()
        program.line("Ctrl-C")
        tab = Tab(browser, port)
        tab.page.set_viewport_size({"width": 320, "height": 568})
        tab.join("Ada")
        many = "INSERT INTO orders SELECT n, 'a very long name of an item ' || n, n FROM generate_series(10, 99) AS n"
        run([*shlex.split(command)[:-1], many], folder=ANYWHERE, environment={})
        expect(tab.page.locator("#orders tr")).to_have_count(93, timeout=LIMIT_SECONDS * 1000)
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 320
        tab.say("still room to write")
        tab.shows_message("still room to write", author="Ada", badge="FastAPI")


def test_database_of_somebody_else_gets_no_table(port: int, database_url: str) -> None:
    with chromium() as browser, demo_at(port, "--url", database_url, CHAT_ORDERS="1") as program:
        program.line("Ctrl-C")
        assert "SQL" not in program.text()
        for port_, name in ((port, "FastAPI"), (port + 1, "Django")):
            tab = Tab(browser, port_)
            tab.join("Ada")
            tab.say("no table here")
            shows(tab.page.locator("#messages .badge", has_text=name))
            expect(tab.page.locator("#table")).to_be_hidden()


def test_link_leads_to_the_same_room_on_the_other_server(port: int, database_url: str) -> None:
    with chromium() as browser, demo_at(port, "--url", database_url) as program:
        program.line("Ctrl-C")
        tab = Tab(browser, port)
        tab.join("Ada", room="attic")
        with tab.page.context.expect_page() as opened:
            tab.page.get_by_role("link", name="Open this room on Django").click()
        other = opened.value
        other.get_by_label("Your name").fill("Alan")
        other.get_by_role("button", name="Join").click()
        shows(other.locator("#server", has_text="Django"))
        shows(other.get_by_role("heading", name="attic"))
        tab.shows_people("django", "Alan")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_demo_that_was_ended(how: signal.Signals, port: int, database_url: str) -> None:
    with demo_at(port, url=database_url) as program:
        program.line("Ctrl-C")
        family = descendants_of(program.pid)
        assert len(family) == 2
        program.process.send_signal(how)
        program.process.wait(LIMIT_SECONDS)
        eventually(lambda: not any(is_alive(pid) for pid in family))
        assert is_free(port)
        assert is_free(port + 1)


@pytest.mark.parametrize(("index", "name"), [(0, "FastAPI"), (1, "Django")])
def test_server_that_dies_is_named_and_the_other_one_stopped(
    index: int, name: str, port: int, database_url: str
) -> None:
    with demo_at(port, url=database_url) as program:
        program.line("Ctrl-C")
        family = descendants_of(program.pid)
        os.kill(family[index], signal.SIGKILL)
        assert program.end() == 1
        assert f"{name} ended by itself with status -9" in program.text()
        assert [pid for pid in family if is_alive(pid)] == []


def test_reason_why_a_server_does_not_start_is_shown(port: int, database_url: str) -> None:
    with demo_at(port, url=database_url, UVICORN_LIMIT_CONCURRENCY="x") as program:
        assert program.end() == 1
    assert "FastAPI ended by itself" in program.text()
    assert "'x' is not a valid integer" in program.text()


def test_settings_of_other_projects_in_the_environment_do_no_harm(port: int, database_url: str) -> None:
    with demo_at(port, url=database_url, DJANGO_SETTINGS_MODULE="shop.settings", WEB_CONCURRENCY="3") as program:
        program.line("Ctrl-C")
        assert len(descendants_of(program.pid)) == 2


@pytest.mark.parametrize("offset", [0, 1])
def test_taken_port_is_named_with_the_option(offset: int, port: int) -> None:
    with socket.create_server(("127.0.0.1", port + offset)), demo_at(port) as program:
        assert program.end() == 1
    assert f"port {port + offset} of 127.0.0.1 is taken" in program.text()
    assert "--port" in program.text()
    assert "Traceback" not in program.text()


def test_unreachable_database_is_an_error_of_one_line(port: int) -> None:
    with demo_at(port, "--url", f"postgresql://nobody@127.0.0.1:{port + 1}/nothing") as program:
        assert program.end() == 1
    assert "Traceback" not in program.text()
    assert "127.0.0.1" in program.text()


@pytest.mark.parametrize("text", ["0", "65535", "http", "-1"])
def test_port_must_leave_room_for_the_next_one(text: str) -> None:
    with running(
        [sys.executable, "-m", "pgchannels", "demo", f"--port={text}"], folder=ANYWHERE, environment={}
    ) as program:
        assert program.end() == 2
    assert "Django gets the one after it" in program.text()


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda module: None if module == "daphne" else object())
    with pytest.raises(DemoFailed, match=r'the demo needs daphne: pip install "pgchannels\[demo\]"'):
        demo._require_extras()


def test_both_pages_are_opened_in_the_browser(port: int, database_url: str, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    environment = {"PGCHANNELS_URL": database_url, "BROWSER": f"sh -c 'echo %s >> {opened}'"}
    command = [sys.executable, "-m", "pgchannels", "demo", "--port", str(port)]
    with running(command, folder=ANYWHERE, environment=environment) as program:
        program.line("Ctrl-C")
        eventually(lambda: opened.exists() and len(opened.read_text().splitlines()) == 2)
        assert answers(port)
        program.process.terminate()
        assert program.end() == 0
    assert opened.read_text().splitlines() == [f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{port + 1}/"]
