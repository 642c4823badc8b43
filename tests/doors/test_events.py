"""Server-Sent Events of clients that leave, come back, say nonsense or take nothing: with real uvicorn."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.support.programs import LIMIT_SECONDS, eventually
from tests.support.sites import Events, Site, serving

STOP_SECONDS: Final = 2
MAIN: Final = """
import os
from typing import Annotated
from fastapi import FastAPI, Query, Request, Response, WebSocket
from pgchannels import MessageLayer
from pgchannels.starlette import exception_handlers, lifespan, websocket_messages
from pgchannels.starlette.events import event_source

layer = MessageLayer(os.environ["PGCHANNELS_URL"], heartbeat=0.2)
app = FastAPI(lifespan=lifespan(layer), exception_handlers=exception_handlers)

@app.post("/rooms/{room}")
async def say(room: str, text: str) -> str:
    return str(await layer.publish(room, {"text": text}))

@app.post("/flood")
async def flood() -> None:
    for number in range(20):
        await layer.publish("slow", [number, "x" * 1_000_000])

@app.post("/close")
async def close() -> None:
    await layer.close()

@app.api_route("/events", methods=["GET", "HEAD"])
async def events(request: Request, room: Annotated[list[str], Query()], since: str | None = None) -> Response:
    return event_source(request, layer.subscribe(*room, since=since), retry=0.5)

@app.get("/impatient")
async def impatient(request: Request) -> Response:
    return event_source(request, layer.subscribe("room"), ping=0.05)

@app.get("/slow")
async def slow(request: Request) -> Response:
    return event_source(request, layer.subscribe("slow", capacity=5), send_timeout=0.5)

@app.get("/lines")
async def lines(request: Request) -> Response:
    return event_source(request, layer.subscribe("room"), encode=lambda message: message.payload["text"])

@app.get("/broken")
async def broken(request: Request) -> Response:
    return event_source(request, layer.subscribe("room"), encode=lambda message: object())

@app.get("/mistaken")
async def mistaken(request: Request, ping: float = 15, send_timeout: float = 30) -> Response:
    return event_source(request, layer.subscribe("room"), ping=ping, send_timeout=send_timeout)

@app.websocket("/rooms/{room}")
async def listen(websocket: WebSocket, room: str) -> None:
    await websocket_messages(websocket, layer.subscribe(room))
"""


@pytest.fixture
def silent(tmp_path: Path, database_url: str) -> Iterator[Site]:
    """A server that the test ends, or that is killed."""
    (tmp_path / "main.py").write_text(MAIN)
    with serving(tmp_path, module="observed", PGCHANNELS_URL=database_url) as site:
        yield site


@pytest.fixture
def site(silent: Site) -> Iterator[Site]:
    """A server that ends in order."""
    yield silent
    silent.stop()


def test_message_comes_with_an_id_from_which_its_client_resumes(site: Site) -> None:
    with site.events("/events?room=lobby") as events:
        assert events.answer.headers["Content-Type"].startswith("text/event-stream")
        assert events.answer.headers["X-Accel-Buffering"] == "no"
        assert events.answer.headers["Connection"] is None
        site.has_subscriptions(1)
        position = site.post("/rooms/lobby?text=one")
        assert json.loads(events.next()["data"]) == {"topic": "lobby", "position": position, "payload": {"text": "one"}}
        assert events.last_id == position
    for text in ("two", "three"):
        site.post(f"/rooms/lobby?text={text}")
    with site.events("/events?room=lobby&since=0-1", **{"Last-Event-ID": events.last_id}) as events:
        assert [events.payload()["text"] for _ in range(2)] == ["two", "three"]


def test_client_that_has_got_no_message_resumes_as_well(site: Site) -> None:
    with site.events("/events?room=lobby") as events:
        first = events.block()
        assert first == {"id": events.last_id, "event": "since", "data": events.last_id, "retry": "500"}
    site.post("/rooms/lobby?text=missed")
    with site.events("/events?room=lobby", **{"Last-Event-ID": events.last_id}) as events:
        assert events.payload() == {"text": "missed"}


def test_client_of_several_rooms_resumes_in_each(site: Site) -> None:
    path, number, said = "/events?room=a&room=b&room=c", 0, []
    events = site.events(path)
    events.block()
    received = []
    for count in (1, 0, 3, 2):
        for room in "abcab"[: count + 2]:
            number += 1
            said.append(f"{room}{number}")
            site.post(f"/rooms/{room}?text={room}{number}")
        received += [events.payload()["text"] for _ in range(count)]
        events.close()
        events = site.events(path, **{"Last-Event-ID": events.last_id})
    received += [events.payload()["text"] for _ in range(len(said) - len(received))]
    events.close()
    assert sorted(received) == sorted(said)
    for room in "abc":
        assert [text for text in received if text[0] == room] == [text for text in said if text[0] == room]


def test_loss_comes_as_an_event_of_its_own(site: Site) -> None:
    with site.events("/events?room=lobby", **{"Last-Event-ID": "0-512"}) as events:
        gap = events.next()
        assert (gap["event"], json.loads(gap["data"])) == ("gap", {"reason": "crash", "count": None})
        site.post("/rooms/lobby?text=one")
        assert events.payload() == {"text": "one"}


def test_id_that_no_event_had_is_refused_before_the_stream(site: Site) -> None:
    for last_id in ("yesterday", "-1", "1-2-3", "1024-0", "1-1,lobby", "1-1,lobby=", "9" * 5000):
        with site.events("/events?room=lobby", **{"Last-Event-ID": last_id}) as events:
            assert events.answer.status == 422
            assert json.load(events.answer)["detail"].startswith("since=")
    with site.events("/events?room=a%20b") as events:
        assert events.answer.status == 422
    with site.events("/events?room=lobby", **{"Last-Event-ID": ""}) as events:
        assert events.answer.status == 200


def test_silent_stream_says_that_it_is_there(site: Site) -> None:
    with site.events("/impatient") as events:
        assert [events.block() for _ in range(3)][1:] == [{"": " ping"}] * 2


def test_text_of_several_lines_arrives_whole(site: Site) -> None:
    with site.events("/lines") as events:
        events.block()
        site.post("/rooms/room?text=one%0Atwo%0D%0Athree%0Dfour%0A")
        assert events.next()["data"] == "one\ntwo\nthree\nfour\n"


def test_question_for_headers_alone_gets_them_and_no_stream(site: Site) -> None:
    connection = HTTPConnection("127.0.0.1", site.port, timeout=LIMIT_SECONDS)
    connection.request("HEAD", "/events?room=lobby")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.read() == b""
    assert site.state()["subscriptions"] == 0
    connection.close()


def test_missing_library_is_named_on_import() -> None:
    program = "import sys; sys.modules['sse_starlette'] = None; import pgchannels.starlette.events"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert run.stderr.endswith("needs the library sse-starlette: pip install 'pgchannels[sse]'\n")


def test_fifty_clients_that_leave_a_silent_room_leave_nothing(silent: Site) -> None:
    with silent.events("/events?room=silent") as events:  # sse-starlette then begins to watch for the server's end
        events.block()
    silent.has_subscriptions(0)
    before = silent.state()
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(silent.events("/events?room=silent")).block()
        assert silent.state()["subscriptions"] == 50
    eventually(lambda: silent.state()["subscriptions"] == 0 and silent.state()["tasks"] <= before["tasks"])
    silent.stop()


def test_server_with_open_streams_and_websockets_stops_within_two_seconds(silent: Site) -> None:
    with ExitStack() as stack:
        streams = [stack.enter_context(silent.events("/events?room=silent")) for _ in range(25)]
        for _ in range(25):
            stack.enter_context(silent.connect("/rooms/silent"))
        silent.has_subscriptions(50)
        silent.stop(within_seconds=STOP_SECONDS)
        for events in streams:
            while events.block() is not None:
                pass
            assert events.answer.isclosed()  # ended in order, so that no proxy complains


def test_client_that_takes_nothing_is_disconnected_and_comes_back_to_the_rest(silent: Site) -> None:
    sleeper = socket.socket()
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sleeper.connect(("127.0.0.1", silent.port))
    sleeper.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    begin = sleeper.recv(4096)
    while b"id: " not in begin:
        begin += sleeper.recv(4096)
    silent.post("/flood")
    silent.has_subscriptions(0)
    sleeper.close()
    last_id = begin.partition(b"id: ")[2].split()[0].decode()
    came: list[int] = []
    while len(came) < 20:  # its mailbox is small, so it may be disconnected again
        with silent.events("/slow", **{"Last-Event-ID": last_id}) as events:
            came += [payload_of(fields)[0] for fields in messages(events)]
            last_id = events.last_id
    assert came == list(range(20))
    silent.stop()


def messages(events: Events) -> Iterator[dict[str, str]]:
    """The messages until twenty are complete or the stream ends."""
    while (fields := events.block()) is not None:
        if "event" not in fields and "data" in fields:
            yield fields
            if payload_of(fields)[0] == 19:
                return


def payload_of(fields: dict[str, str]) -> list[int]:
    payload: list[int] = json.loads(fields["data"])["payload"]
    return payload


def test_stream_ends_with_its_layer_and_is_refused_afterwards(site: Site) -> None:
    with site.events("/events?room=lobby") as events:
        events.block()
        site.post("/close")
        assert events.block() is None
    with site.events("/events?room=lobby") as events:
        assert (events.answer.status, events.answer.headers["Retry-After"]) == (503, "1")


def test_what_an_application_raises_is_its_own(silent: Site) -> None:
    with silent.events("/broken") as events:
        events.block()
        silent.post("/rooms/room?text=x")
        silent.program.line("JSON has no object: let `encode` make something else of it")
    silent.has_subscriptions(0)


def test_impossible_options_are_refused_where_they_are_given(silent: Site) -> None:
    for query, name in (("ping=0", "ping"), ("send_timeout=-1", "send_timeout")):
        with silent.events(f"/mistaken?{query}") as events:
            assert events.answer.status == 500
        silent.program.line(f"ConfigurationError: {name} must be")


def test_client_leaves_and_server_stops_while_a_subscription_cannot_begin(silent: Site, owner_url: str) -> None:
    before = silent.state()
    with psycopg.connect(owner_url) as holder:
        holder.execute("SELECT FROM pgchannels.stripe FOR UPDATE")  # nobody can begin to receive
        for _ in range(3):
            client = HTTPConnection("127.0.0.1", silent.port, timeout=LIMIT_SECONDS)
            client.request("GET", "/events?room=room")
            eventually(lambda: silent.state()["tasks"] > before["tasks"])
            client.close()
            eventually(lambda: silent.state() == before)
        waiting = HTTPConnection("127.0.0.1", silent.port, timeout=LIMIT_SECONDS)
        waiting.request("GET", "/events?room=room")
        eventually(lambda: silent.state()["tasks"] > before["tasks"])
        silent.stop()
        assert waiting.getresponse().status == 503
        waiting.close()
