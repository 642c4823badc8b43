"""Server-Sent Events of a Django project, with real servers."""

import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from django.test import AsyncRequestFactory, RequestFactory

from pgchannels import ConfigurationError, InvalidName, MessageLayer
from pgchannels.django.events import event_source
from tests.support.django_servers import environment_of
from tests.support.django_settings import channel_layers, the_layer
from tests.support.programs import eventually, free_port, running
from tests.support.sites import Site
from tests.support.snippets import snippet
from tests.support.waiting import within

PROJECT: Final = Path(__file__).parent / "project"
STOP_SECONDS: Final = 2
SERVERS: Final = {"uvicorn": "Uvicorn running on", "daphne": "Listening on TCP address"}


@contextmanager
def serving(server: str, url: str, *, folder: Path = PROJECT) -> Iterator[Site]:
    port = free_port()
    command = [sys.executable, "-m", server, "asgi:application", "--port", str(port)]
    environment = environment_of(url) | {"DJANGO_SETTINGS_MODULE": "settings"}
    with running(command, folder=folder, environment=environment) as program:
        program.line(SERVERS[server])
        yield Site(program, port)


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, database_url: str) -> Iterator[Site]:
    with serving(request.param, database_url) as site:
        yield site
        assert "Traceback" not in site.program.text()


@pytest.fixture
def say(database_url: str) -> Any:
    """Publish to a room, as another process does."""
    layer = MessageLayer(database_url)
    return lambda room, text: str(layer.sync.publish(room, {"type": "chat.message", "text": text}))


def test_browser_resumes_in_each_of_its_rooms(site: Site, say: Any) -> None:
    with site.events("/events?room=attic&room=cellar") as events:
        assert events.answer.headers["Content-Type"] == "text/event-stream"
        assert events.answer.headers["Cache-Control"] == "no-cache"
        assert events.block() == {"id": events.last_id, "event": "since", "data": events.last_id, "retry": "500"}
        position = say("attic", "one")
        say("cellar", "two")
        payload = {"type": "chat.message", "text": "one"}
        assert json.loads(events.next()["data"]) == {"topic": "attic", "position": position, "payload": payload}
    say("attic", "three")
    with site.events("/events?room=attic&room=cellar", **{"Last-Event-ID": events.last_id}) as events:
        assert {events.payload()["text"] for _ in range(2)} == {"two", "three"}
        assert events.block() == {"": " ping"}


def test_what_cannot_be_is_refused_before_the_stream(site: Site) -> None:
    for path, last_id in (("/events?room=a%20b", ""), ("/events?room=lobby", "yesterday")):
        with site.events(path, **{"Last-Event-ID": last_id}) as events:
            assert events.answer.status == 422
            assert json.load(events.answer)["detail"]


def test_fifty_clients_that_leave_a_silent_room_leave_nothing(site: Site) -> None:
    with site.events("/events?room=silent") as events:
        events.block()
    site.has_subscriptions(0)
    before = site.state()
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(site.events("/events?room=silent")).block()
        assert site.state()["subscriptions"] == 50
    eventually(lambda: site.state()["subscriptions"] == 0 and site.state()["tasks"] <= before["tasks"])


def test_server_with_open_streams_stops_within_two_seconds(site: Site) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(site.events("/events?room=silent")) for _ in range(20)]
        for events in streams:
            assert events.block()
        site.program.process.send_signal(signal.SIGTERM)
        site.program.process.wait(STOP_SECONDS)
        site.program.end()
        assert "ERROR" not in site.program.text()


def test_client_that_takes_nothing_is_disconnected(database_url: str, say: Any) -> None:
    with serving("uvicorn", database_url) as site:
        sleeper = socket.socket()
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sleeper.connect(("127.0.0.1", site.port))
        sleeper.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        begin = sleeper.recv(4096)
        while b"id: " not in begin:
            begin += sleeper.recv(4096)
        for _ in range(20):
            say("slow", "x" * 1_000_000)
        site.has_subscriptions(0)
        sleeper.close()


def test_view_of_the_page_sends_its_room(tmp_path: Path, database_url: str, say: Any) -> None:
    (tmp_path / "urls.py").write_text(snippet("docs/how-to/django.md", "event_source("))
    settings = (PROJECT / "settings.py").read_text()
    (tmp_path / "settings.py").write_text(settings.replace('ROOT_URLCONF = "asgi"', 'ROOT_URLCONF = "urls"'))
    (tmp_path / "asgi.py").write_text(
        "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"
    )
    with serving("uvicorn", database_url, folder=tmp_path) as site, site.events("/rooms/lobby/events") as events:
        events.block()
        say("room_lobby", "hello")
        assert events.payload()["text"] == "hello"


async def test_subscription_to_groups_gets_every_message(database_url: str) -> None:
    with channel_layers(url=database_url):
        layer = the_layer()
        async with await layer.subscribe("room", "hall") as subscription:
            await layer.group_send("room", {"type": "chat.message"})
            message = await within(anext(subscription))
            assert (message.topic, message.payload) == ("room", {"type": "chat.message"})
        with pytest.raises(ConfigurationError, match="at least one group"):
            await layer.subscribe()
        with pytest.raises(InvalidName):
            await layer.subscribe("no/group")
        await layer.close()
        with pytest.raises(ConfigurationError, match="layer='other'"):
            await event_source(AsyncRequestFactory().get("/"), "room", layer="other")


async def test_server_without_asgi_is_refused(database_url: str) -> None:
    with channel_layers(url=database_url), pytest.raises(ConfigurationError, match="a server that speaks ASGI"):
        await event_source(RequestFactory().get("/"), "room")
