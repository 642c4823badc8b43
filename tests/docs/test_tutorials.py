"""The tutorials, from their first command to the running page: files and commands are those of the pages themselves."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium
from tests.support.programs import LIMIT_SECONDS, Program, answers, eventually, free_port, run, running
from tests.support.snippets import commands, snippets, write_files

FASTAPI, DJANGO, QUEUE = (f"docs/tutorials/{name}.md" for name in ("fastapi-chat", "django-chat", "work-queue"))
LIMIT_MS = LIMIT_SECONDS * 1000


class Reader:
    """Somebody who follows a tutorial in an empty folder; servers get other ports than the page's."""

    def __init__(self, document: str, folder: Path, database_url: str) -> None:
        self.folder = folder
        self._environment = {"PGCHANNELS_URL": database_url}
        self._commands = commands(document)

    def does(self, *beginning: str) -> str:
        """What the next command of the page writes, which must be this one."""
        return run(self._next(*beginning), folder=self.folder, environment=self._environment)

    @contextmanager
    def serves(self, *beginning: str, path: str = "/") -> Iterator[tuple[str, Program]]:
        """The address of the server that the next command of the page starts."""
        command, port = self._next(*beginning), free_port()
        with self.starts_again([str(port) if word in {"8000", "8001"} else word for word in command]) as program:
            eventually(lambda: answers(port, path) or program.process.poll() is not None)
            assert program.process.poll() is None, program.text()
            yield f"http://127.0.0.1:{port}{path}", program

    @contextmanager
    def starts(self, *beginning: str) -> Iterator[Program]:
        """The program that the next command of the page starts."""
        with self.starts_again(self._next(*beginning)) as program:
            yield program

    @contextmanager
    def starts_again(self, command: list[str]) -> Iterator[Program]:
        """The same in another terminal."""
        with running(command, folder=self.folder, environment=self._environment) as program:
            yield program

    def has_done_everything(self) -> bool:
        """Whether no command of the page is left."""
        return not self._commands

    def _next(self, *beginning: str) -> list[str]:
        command = self._commands.pop(0)
        assert command[: len(beginning)] == list(beginning)
        return command


@pytest.fixture
def browser(empty_database_url: str) -> Iterator[Browser]:
    # After the database: playwright's event loop runs while a browser is open, and fixtures have loops of their own.
    with chromium() as browser:
        yield browser


def visit(browser: Browser, address: str, parameters: Mapping[str, str] = {}) -> Page:
    """A page that is connected."""
    page = browser.new_context().new_page()
    page.set_default_timeout(LIMIT_MS)
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    page.goto(f"{address}?{query}")
    expect(page.get_by_role("button")).to_be_enabled(timeout=LIMIT_MS)
    return page


def say(page: Page, text: str) -> None:
    """Write into the page's form."""
    page.get_by_role("textbox").fill(text)
    page.get_by_role("button").click()


def shows(page: Page, *lines: str) -> None:
    """The page comes to show these lines, no less and no more."""
    expect(page.get_by_role("listitem")).to_have_text(list(lines), timeout=LIMIT_MS)


@pytest.mark.parametrize("document", [FASTAPI, DJANGO, QUEUE])
def test_every_block_of_python_is_a_file_that_the_reader_saves(document: str, tmp_path: Path) -> None:
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "settings.py").touch()
    assert {*snippets(document), *snippets(document, "html")} == write_files(document, tmp_path)


def test_fastapi_chat(browser: Browser, empty_database_url: str, tmp_path: Path) -> None:
    reader = Reader(FASTAPI, tmp_path, empty_database_url)
    write_files(FASTAPI, tmp_path)
    reader.does("pgchannels", "upgrade")
    with reader.serves("uvicorn") as (one, first):
        ada, alan = (visit(browser, one, {"name": name}) for name in ("Ada", "Alan"))
        say(ada, "hello")
        shows(alan, "Ada: hello")
        alan.reload()
        shows(alan, "Ada: hello")
        with reader.serves("uvicorn") as (two, _):
            assert reader.has_done_everything()
            grace = visit(browser, two, {"name": "Grace"})
            say(grace, "hello yourself")
            for page in (ada, alan, grace):
                shows(page, "Ada: hello", "Grace: hello yourself")
            first.process.send_signal(signal.SIGINT)
            assert first.end() in (0, -signal.SIGINT)
            assert "Traceback" not in first.text()
            expect(ada.locator("#state")).to_have_text("Disconnected, trying again…", timeout=LIMIT_MS)
            say(grace, "are you there?")
            shows(grace, "Ada: hello", "Grace: hello yourself", "Grace: are you there?")
            port = one.rpartition(":")[2].strip("/")
            with reader.starts_again(["uvicorn", "main:app", "--port", port]):
                shows(ada, "Ada: hello", "Grace: hello yourself", "Grace: are you there?")


def test_django_chat(browser: Browser, empty_database_url: str, tmp_path: Path) -> None:
    reader = Reader(DJANGO, tmp_path, empty_database_url)
    reader.does("django-admin", "startproject")
    reader.does("pgchannels", "upgrade")
    write_files(DJANGO, tmp_path)
    assert "no issues" in reader.does("python", "manage.py", "check")
    with (
        reader.serves("python", "manage.py", "runserver", path="/lobby/") as (one, _),
        reader.serves("daphne", path="/lobby/") as (two, _),
    ):
        ada, alan, grace = (
            visit(browser, one, {"name": "Ada"}),
            visit(browser, one, {"name": "Alan"}),
            visit(browser, two, {"name": "Grace"}),
        )
        say(ada, "hello")
        for page in (ada, alan, grace):
            shows(page, "Ada: hello")
        reader.does("python", "manage.py", "shell")
        assert reader.has_done_everything()
        for page in (ada, alan, grace):
            shows(page, "Ada: hello", "Django: Hello from a shell")


def test_work_queue(browser: Browser, empty_database_url: str, tmp_path: Path) -> None:
    reader = Reader(QUEUE, tmp_path, empty_database_url)
    write_files(QUEUE, tmp_path)
    reader.does("pgchannels", "upgrade")
    with reader.serves("uvicorn") as (address, _):
        page, other = visit(browser, address), visit(browser, address)
        say(page, "ordered before a worker runs")
        with reader.starts("python", "worker.py") as worker, reader.starts_again(["python", "worker.py"]) as colleague:
            assert reader.has_done_everything()
            for program in (worker, colleague):
                program.line("waits for jobs")
            expect(other.get_by_role("listitem")).to_have_count(1, timeout=LIMIT_MS)
            for number in range(4):
                say(page, f"job {number}")
            for tab in (page, other):
                expect(tab.get_by_role("listitem")).to_have_count(5, timeout=LIMIT_MS)
                for program in (worker, colleague):
                    expect(tab.get_by_text(f"worker {program.pid}").first).to_be_visible(timeout=LIMIT_MS)
            for program in (worker, colleague):
                program.process.send_signal(signal.SIGINT)
                assert program.end() == 0
                assert "stopped" in program.text()
    shows_words = other.get_by_text("“ordered before a worker runs”: 5 words")
    expect(shows_words).to_be_visible(timeout=LIMIT_MS)
