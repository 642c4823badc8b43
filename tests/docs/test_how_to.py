"""The applications of the how-to pages, with real servers and real clients."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import asyncpg
import pytest
from sqlalchemy import make_url
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pgchannels import MessageLayer
from tests.support.browser import chromium
from tests.support.programs import LIMIT_SECONDS, Program, eventually, free_port, run, running
from tests.support.sites import Events
from tests.support.snippets import PLACEHOLDER, ROOT, commands, snippet, snippets, write_files

FASTAPI, EVENTS, HEALTH = "docs/how-to/fastapi.md", "docs/how-to/server-sent-events.md", "docs/how-to/deployment.md"
BROADCASTER, TESTING = "docs/how-to/migrate-from-broadcaster.md", "docs/how-to/testing.md"
OBSERVED: Final = """
from main import app, layer

@app.get("/subscriptions")
async def subscriptions() -> int:
    routes = layer._process.here().receiver.router._routes.values()
    begun = [one for route in routes for one in route.recipients.values()]
    recipients = [*begun, *(one for route in routes for _, one in route.beginning.values())]
    return len({id(one) for one in recipients if type(one).__name__ == "Mailbox"})  # that have begun
"""


class Site:
    """A server with the application of a page."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port

    def ask(self, path: str, method: str = "GET") -> Any:
        """What is answered."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
            return json.load(answer)

    def connect(self, path: str) -> ClientConnection:
        """A websocket."""
        client: ClientConnection = connect(f"ws://127.0.0.1:{self.port}{path}", open_timeout=LIMIT_SECONDS)
        return client

    def has_subscribers(self, count: int) -> None:
        """Wait until it has so many."""
        eventually(lambda: self.ask("/subscriptions") == count)


@contextmanager
def serving(page: str, folder: Path, database_url: str, *options: str, **environment: str) -> Iterator[Site]:
    """A server with all blocks of Python of a page as one file."""
    (folder / "main.py").write_text("\n\n".join(snippets(page)).replace(PLACEHOLDER, database_url))
    (folder / "observed.py").write_text(OBSERVED)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "observed:app", "--port", str(port), *options]
    with running(command, folder=folder, environment={"PGCHANNELS_URL": database_url, **environment}) as program:
        program.line("Uvicorn running")
        yield Site(program, port)
        program.process.send_signal(signal.SIGTERM)
        program.end()


@pytest.fixture
def fastapi(tmp_path: Path, database_url: str) -> Iterator[Site]:
    with serving(FASTAPI, tmp_path, database_url) as site:
        yield site
    assert "Traceback" not in site.program.text()


def payload(client: ClientConnection) -> Any:
    """That of the next message, which is sent with its topic and position."""
    return json.loads(client.recv(LIMIT_SECONDS))["payload"]


def test_listener_comes_back_without_a_loss(fastapi: Site) -> None:
    position = fastapi.ask("/rooms/lobby?text=one", "POST")
    fastapi.ask("/rooms/lobby?text=two", "POST")
    with fastapi.connect(f"/rooms/lobby?since={position}") as client:
        assert payload(client) == {"text": "two"}
        fastapi.ask("/sync/lobby?text=three", "POST")
        assert payload(client) == {"text": "three"}
    fastapi.has_subscribers(0)


def test_clients_talk_in_payloads_alone(fastapi: Site) -> None:
    with fastapi.connect("/talk/lobby") as client:
        fastapi.has_subscribers(1)
        client.send("hello")
        assert json.loads(client.recv(LIMIT_SECONDS)) == {"text": "hello"}


def test_only_known_users_get_in(fastapi: Site) -> None:
    with pytest.raises(InvalidStatus) as refused:
        fastapi.connect("/private/lobby?token=guessed")
    assert refused.value.response.status_code == 403
    with fastapi.connect("/private/lobby?token=ada-token") as client:
        fastapi.has_subscribers(1)
        client.send("hello")
        assert payload(client) == {"from": "Ada", "text": "hello"}


def test_one_websocket_listens_to_several_rooms(fastapi: Site) -> None:
    with fastapi.connect("/rooms?room=attic&room=cellar") as client:
        fastapi.has_subscribers(1)
        for room in ("attic", "cellar"):
            fastapi.ask(f"/rooms/{room}?text={room}", "POST")
            assert payload(client) == {"text": room}


def test_websocket_of_several_rooms_resumes_in_each(fastapi: Site) -> None:
    first = fastapi.ask("/rooms/cellar?text=one", "POST")
    second = fastapi.ask("/rooms/attic?text=two", "POST")
    fastapi.ask("/rooms/cellar?text=three", "POST")
    with fastapi.connect(f"/rooms?room=attic&room=cellar&since={first},rooms.attic={second}") as client:
        assert payload(client) == {"text": "three"}
        fastapi.ask("/rooms/attic?text=four", "POST")
        assert payload(client) == {"text": "four"}


def test_desk_is_for_those_whom_a_dependency_allows(fastapi: Site) -> None:
    with fastapi.connect("/desks/front?token=guessed") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(LIMIT_SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    with fastapi.connect("/desks/front?token=ada-token") as client:
        fastapi.has_subscribers(1)
        fastapi.ask("/desks/front?text=letter", "POST")
        assert payload(client) == {"text": "letter"}


def test_prices_reach_their_page(fastapi: Site) -> None:
    with fastapi.connect("/prices/abc") as client:
        fastapi.has_subscribers(1)
        fastapi.ask("/prices/abc?price=7", "POST")
        assert payload(client) == {"price": 7}


def test_nobody_listens_to_private_rooms_by_another_way(fastapi: Site) -> None:
    with fastapi.connect("/rooms/private.lobby") as eve, fastapi.connect("/private/lobby?token=ada-token") as ada:
        fastapi.has_subscribers(2)
        ada.send("secret")
        assert payload(ada) == {"from": "Ada", "text": "secret"}
        fastapi.ask("/rooms/private.lobby?text=public", "POST")
        assert payload(eve) == {"text": "public"}


def test_browser_gets_events_and_comes_back_without_a_loss(tmp_path: Path, database_url: str) -> None:
    with serving(EVENTS, tmp_path, database_url, PING_SECONDS="0.05") as site:
        with Events(site.port, "/rooms/lobby/events", {}) as events:
            assert events.block() is not None
            assert events.block() == {"": " ping"}
            site.ask("/rooms/lobby?text=one", "POST")
            assert events.payload() == {"text": "one"}
        site.has_subscribers(0)
        site.ask("/rooms/lobby?text=two", "POST")
        with Events(site.port, "/rooms/lobby/events", {"Last-Event-ID": events.last_id}) as events:
            assert events.payload() == {"text": "two"}


def test_stream_of_several_rooms_resumes_in_each(tmp_path: Path, database_url: str) -> None:
    path = "/events?room=attic&room=cellar"
    with serving(EVENTS, tmp_path, database_url) as site:
        with Events(site.port, path, {}) as events:
            events.block()
            site.ask("/rooms/attic?text=one", "POST")
            site.ask("/rooms/cellar?text=two", "POST")
            assert events.payload() == {"text": "one"}
        with Events(site.port, path, {"Last-Event-ID": events.last_id}) as events:
            assert events.payload() == {"text": "two"}


def test_page_of_a_browser_listens_to_events(tmp_path: Path, database_url: str) -> None:
    with serving(EVENTS, tmp_path, database_url) as site, chromium() as browser:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{site.port}/subscriptions")
        with page.expect_console_message(lambda said: said.type == "log", timeout=LIMIT_SECONDS * 1000) as said:
            page.set_content(snippet(EVENTS, "EventSource", "html"))
            site.has_subscribers(1)
            site.ask("/rooms/lobby?text=hello", "POST")
        assert said.value.args[0].json_value() == {"text": "hello"}


def test_wrong_event_id_and_room_are_refused_before_the_stream(tmp_path: Path, database_url: str) -> None:
    with serving(EVENTS, tmp_path, database_url) as site:
        for path, headers in (("/rooms/a%20b/events", {}), ("/rooms/lobby/events", {"Last-Event-ID": "yesterday"})):
            with Events(site.port, path, headers) as events:
                assert events.answer.status == 422


def test_server_with_open_streams_stops_at_once(tmp_path: Path, database_url: str) -> None:
    [command] = commands(EVENTS)
    options = command[command.index("--timeout-graceful-shutdown") :]
    with (
        serving(EVENTS, tmp_path, database_url, *options) as site,
        Events(site.port, "/rooms/lobby/events", {}) as events,
    ):
        site.has_subscribers(1)
        site.program.process.send_signal(signal.SIGTERM)
        assert site.program.end() in (0, -signal.SIGTERM)
        assert not re.search("exceeded|Traceback|ERROR", site.program.text())
        while events.block() is not None:
            pass


def execute(url: str, statement: str) -> None:
    """Run a statement on a connection of its own."""

    async def on_a_connection() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(on_a_connection())


def status(site: Site, path: str) -> int:
    """With which the site answers."""
    try:
        site.ask(path)
    except HTTPError as answer:
        with answer:
            return answer.code
    return 200


def test_readiness_follows_the_database_and_liveness_does_not(
    tmp_path: Path, database_url: str, server_url: str
) -> None:
    database = make_url(database_url).database
    with serving(HEALTH, tmp_path, database_url) as site:
        assert status(site, "/ready") == 200
        execute(server_url, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
        execute(server_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")
        eventually(lambda: status(site, "/ready") == 503)
        assert status(site, "/live") == 200
        execute(server_url, f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
        eventually(lambda: status(site, "/ready") == 200)


def test_chatroom_after_the_move_from_broadcaster(tmp_path: Path, database_url: str) -> None:
    before, after = snippets(BROADCASTER)
    compile(before, BROADCASTER, "exec")
    (tmp_path / "main.py").write_text(after.replace(PLACEHOLDER, database_url))
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port)]
    with running(command, folder=tmp_path, environment={}) as program:
        program.line("Uvicorn running")
        site = Site(program, port)
        with site.connect("/") as ada, site.connect("/") as alan:
            for client in (ada, alan):  # a client that hears itself has subscribed
                while heard(client) is None:
                    client.send("hello?")
            ada.send("hello")
            while (text := alan.recv(LIMIT_SECONDS)) != "hello":
                assert text == "hello?"


def heard(client: ClientConnection) -> object:
    """What comes within a moment."""
    with suppress(TimeoutError):
        return client.recv(0.1)
    return None


def test_pages_own_tests_pass(tmp_path: Path) -> None:
    assert write_files(TESTING, tmp_path) == set(snippets(TESTING))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    assert "4 passed" in run(command, folder=tmp_path, environment={"PYTHONPATH": path})


async def test_owner_grants_what_an_application_needs(empty_database_url: str, application_role: str) -> None:
    line = snippet(HEALTH, "--grant-to", "sh")
    words = re.sub(r"postgresql://\S+", empty_database_url, line).replace(
        "--grant-to app", "--grant-to " + application_role
    )
    command = [sys.executable, "-m", *words.split()]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    url = make_url(empty_database_url).set(username=application_role, password=application_role)
    async with MessageLayer(url.render_as_string(hide_password=False)) as layer:
        await layer.publish("room", 1)
