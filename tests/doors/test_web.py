"""Websockets of browsers that leave, say nonsense or take nothing; servers that are told to stop: with real uvicorn."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.support import sites
from tests.support.programs import LIMIT_SECONDS, eventually
from tests.support.sites import Site
from tests.support.snippets import PLACEHOLDER, snippet

ODD: Final = """
import asyncio, datetime, decimal, uuid
from fastapi import WebSocket
from observed import app, layer
from pgchannels.starlette import websocket_messages

@app.websocket("/slow")
async def slow(websocket: WebSocket) -> None:
    subscription = layer.subscribe("slow", capacity=5)
    await websocket_messages(websocket, subscription, send_timeout=0.5)

@app.post("/flood")
async def flood() -> None:
    for number in range(20):
        await layer.publish("slow", "x" * 1_000_000)

@app.websocket("/talk")
async def talk(websocket: WebSocket) -> None:
    async def received(text: str | bytes) -> None:
        await layer.publish("talk", text)
    await websocket_messages(websocket, layer.subscribe("talk"), received=received, encode=lambda one: one.payload)

@app.websocket("/resumable/{room}")
async def resumable(websocket: WebSocket, room: str, since: str | None = None) -> None:
    await websocket_messages(websocket, layer.subscribe(room, "other", since=since), resumable=True)

@app.websocket("/busy")
async def busy(websocket: WebSocket) -> None:
    async def received(text: str | bytes) -> None:
        await websocket.send_text(text)
        await asyncio.Event().wait()
    await websocket_messages(websocket, layer.subscribe("talk"), received=received)

@app.websocket("/broken")
async def broken(websocket: WebSocket) -> None:
    async def received(text: str | bytes) -> None:
        raise RuntimeError("broken on purpose")
    await websocket_messages(websocket, layer.subscribe("talk"), received=received)

@app.post("/values")
async def values() -> None:
    await layer.publish("room", [
        float("nan"), {"a": float("inf")}, b"\\x00", {1}, decimal.Decimal("1.50"), uuid.UUID(int=5),
        datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.date(2026, 1, 2), "\\u2028", 2**63,
    ])

@app.post("/close")
async def close() -> None:
    await layer.close()
"""


@contextmanager
def serving(folder: Path, database_url: str, *options: str, module: str = "observed") -> Iterator[Site]:
    (folder / "main.py").write_text(snippet("README.md", "FastAPI(").replace(PLACEHOLDER, database_url))
    (folder / "odd.py").write_text(ODD)
    with sites.serving(folder, *options, module=module) as site:
        yield site


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[Site]:
    """A server that ends in order."""
    with serving(tmp_path, database_url, module="odd") as site:
        yield site
        site.stop()


def received(client: ClientConnection) -> Any:
    """The next message."""
    return json.loads(client.recv(LIMIT_SECONDS))


def closing(client: ClientConnection) -> tuple[int, str]:
    """With which code and reason the server ends the connection; 1006 when it says none."""
    try:
        while True:
            client.recv(LIMIT_SECONDS)
    except ConnectionClosed as closed:
        return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


@pytest.mark.parametrize("implementation", ["auto", "websockets-sansio"])
def test_clients_that_leave_a_silent_room_leave_nothing(tmp_path: Path, database_url: str, implementation: str) -> None:
    with serving(tmp_path, database_url, "--ws", implementation) as site:
        before = site.state()
        with ExitStack() as stack:
            clients = [stack.enter_context(site.connect("/rooms/silent")) for _ in range(50)]
            eventually(lambda: site.state()["subscriptions"] == 50)
            for client in clients[:25]:
                client.socket.close()  # without a word, as a laptop that is shut
        eventually(lambda: site.state() == before)
        site.stop()


@pytest.mark.parametrize("implementation", ["auto", "websockets-sansio"])
def test_server_with_open_websockets_stops_at_once(tmp_path: Path, database_url: str, implementation: str) -> None:
    with serving(tmp_path, database_url, "--ws", implementation) as site, ExitStack() as stack:
        clients = [stack.enter_context(site.connect("/rooms/silent")) for _ in range(5)]
        eventually(lambda: site.state()["subscriptions"] == 5)
        site.stop()
        assert {closing(client)[0] for client in clients} <= {1001, 1012}


def test_client_that_comes_back_gets_what_it_missed(site: Site) -> None:
    with site.connect("/rooms/lobby") as client:
        eventually(lambda: site.state()["subscriptions"] == 1)
        site.post("/rooms/lobby?text=one")
        first = received(client)
        assert first == {"topic": "lobby", "position": first["position"], "payload": {"text": "one"}}
    for text in ("two", "three"):
        site.post(f"/rooms/lobby?text={text}")
    with site.connect(f"/rooms/lobby?since={first['position']}") as client:
        assert [received(client)["payload"]["text"] for _ in range(2)] == ["two", "three"]


def test_client_that_has_got_no_message_comes_back_to_all(site: Site) -> None:
    with site.connect("/resumable/lobby") as client:
        begin = received(client)
    for text in ("one", "two"):
        site.post(f"/rooms/lobby?text={text}")
    with site.connect(f"/resumable/lobby?since={begin['since']}") as client:
        assert received(client) == begin
        first = received(client)
        assert first["payload"] == {"text": "one"}
    with site.connect(f"/resumable/lobby?since={begin['since']},lobby={first['position']}") as client:
        received(client)
        assert received(client)["payload"] == {"text": "two"}


def test_client_in_a_silent_room_hears_where_it_stands(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "impatient.py").write_text(
        "import pgchannels.starlette\npgchannels.starlette._SILENCE_SECONDS = 0.05\nfrom odd import app\n"
    )
    with serving(tmp_path, database_url, module="impatient") as site, site.connect("/resumable/lobby") as client:
        assert [list(received(client)) for _ in range(3)] == [["since"]] * 3
        site.post("/rooms/lobby?text=one")
        while "since" in (message := received(client)):
            pass
        assert message["payload"] == {"text": "one"}


def test_client_is_told_that_its_position_is_none(site: Site) -> None:
    for since in ("yesterday", "", "-1", "99999999999999999999-1", "1-2-3", "%00", "1024-0", "9" * 5000):
        with site.connect(f"/rooms/lobby?since={since}") as client:
            code, reason = closing(client)
        assert code == 1008
        assert reason.startswith("since=")


def test_client_is_told_that_its_room_is_none(site: Site) -> None:
    for room in ("a b", "é", "x" * 300, "a*", "'; DROP TABLE", "\x01"):
        with site.connect(f"/rooms/{quote(room)}") as client:
            code, reason = closing(client)
        assert code == 1008
        assert "is no topic" in reason or len(reason.encode()) > 100
        with pytest.raises(HTTPError) as caught:
            site.post(f"/rooms/{quote(room)}?text=x")
        with caught.value as answer:
            assert answer.status == 422
            assert "is no topic" in json.load(answer)["detail"]


def test_client_that_takes_nothing_is_disconnected_and_leaves_nothing(site: Site) -> None:
    with site.connect("/slow", max_queue=1) as client:
        eventually(lambda: site.state()["subscriptions"] == 1)
        site.post("/flood")
        eventually(lambda: site.state()["subscriptions"] == 0)
        client.socket.close()


def test_what_clients_say_is_taken_while_nothing_is_sent(site: Site) -> None:
    with site.connect("/talk") as client:
        eventually(lambda: site.state()["subscriptions"] == 1)
        for content in ("text", b"bytes", "", "null"):
            client.send(content)
        assert [client.recv(LIMIT_SECONDS) for _ in range(4)] == ["text", b"bytes", "", "null"]


def test_client_leaves_and_server_stops_while_what_clients_say_is_still_handled(site: Site) -> None:
    before = site.state()
    for _ in range(3):
        with site.connect("/busy") as client:
            client.send("busy for ever")
            assert client.recv(LIMIT_SECONDS) == "busy for ever"
            for _ in range(500):
                client.send("and more")
            client.socket.close()
    eventually(lambda: site.state() == before)
    with site.connect("/busy") as client, site.connect("/busy") as flooding:
        for one in (client, flooding):
            one.send("busy for ever")
            assert one.recv(LIMIT_SECONDS) == "busy for ever"
        for _ in range(3):
            flooding.send("x" * 1_000_000)  # more than is read ahead
        site.stop()


def test_damaged_frame_is_no_error_of_the_application(tmp_path: Path, database_url: str) -> None:
    text_of_bad_bytes = b"\x81\x84\x00\x00\x00\x00\xff\xfe\xff\xfe"
    with serving(tmp_path, database_url) as site:
        before = site.state()
        for _ in range(10):
            with site.connect("/rooms/lobby") as client:
                client.socket.sendall(text_of_bad_bytes)
                for _ in range(20):
                    site.post("/rooms/lobby?text=x")
        eventually(lambda: site.state() == before)
        assert "Exception in ASGI application" not in site.program.text()


def test_every_value_comes_as_json(site: Site) -> None:
    with site.connect("/rooms/room") as client:
        eventually(lambda: site.state()["subscriptions"] == 1)
        site.post("/values")
        payload = json.loads(client.recv(LIMIT_SECONDS), parse_constant=pytest.fail)["payload"]
    moments = ["2026-01-02T00:00:00+00:00", "2026-01-02"]
    uuid = "00000000-0000-0000-0000-000000000005"
    assert payload == [None, {"a": None}, "AA==", [1], "1.50", uuid, *moments, "\u2028", 2**63]


def test_client_is_told_that_the_layer_is_closed(site: Site) -> None:
    with site.connect("/rooms/lobby") as client:
        eventually(lambda: site.state()["subscriptions"] == 1)
        site.post("/close")
        assert closing(client) == (1012, "the service is away for a moment: try again")
    with site.connect("/rooms/lobby") as client:
        assert closing(client)[0] == 1012


def test_what_an_application_raises_is_its_own(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, database_url, module="odd") as site:
        with site.connect("/broken") as client:
            eventually(lambda: site.state()["subscriptions"] == 1)
            client.send("x")
            assert closing(client)[0] in {1006, 1011}
        site.program.line("RuntimeError: broken on purpose")
        eventually(lambda: site.state()["subscriptions"] == 0)
