"""Both chats, started by the commands of their READMEs: the same promises at the same websocket."""

import json
import signal
from http.client import HTTPConnection

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.examples.conftest import CHATS
from tests.support.programs import EXAMPLES, LIMIT_SECONDS, chat, commands_of, free_port, running, with_port

from .chatting import joined


def test_page_is_served(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.getheader("Content-Type", "").startswith("text/html")
    assert response.read() == (EXAMPLES / "chat_page" / "index.html").read_bytes()
    connection.close()


def test_page_is_told_where_it_is(port: int, room: str, server: str) -> None:
    with joined(port, room, "Ada") as ada:
        welcome = ada.hears("chat.welcome")
    assert welcome["server"] == server
    assert welcome["other_port"] is None


def test_everybody_in_the_room_hears_what_is_said(port: int, room: str, server: str) -> None:
    with joined(port, room, "Ada") as ada, joined(port, room, "Alan") as alan:
        for person in (ada, alan):
            person.hears("chat.history")
        ada.say("hello <b>you</b>")
        heard = [person.hears("chat.message") for person in (ada, alan)]
    assert heard[0] == heard[1]
    assert heard[0].items() >= {"author": "Ada", "text": "hello <b>you</b>", "server": server}.items()


def test_nobody_in_another_room_hears_it(port: int, room: str) -> None:
    with joined(port, room, "Ada") as ada, joined(port, f"not_{room}"[:40], "Eve") as eve:
        eve.hears("chat.history")
        ada.say("not for Eve")
        ada.hears("chat.message")
        eve.say("I heard nothing")
        assert eve.hears("chat.message")["author"] == "Eve"


def test_order_is_kept(port: int, room: str) -> None:
    with joined(port, room, "Ada") as ada, joined(port, room, "Alan") as alan:
        alan.hears("chat.history")
        for number in range(100):
            ada.say(str(number))
        assert [int(alan.hears("chat.message")["text"]) for _ in range(100)] == list(range(100))


def test_newcomer_reads_what_was_said_before(port: int, room: str) -> None:
    with joined(port, room, "Ada") as ada:
        for text in ("one", "two"):
            ada.say(text)
            ada.hears("chat.message", text=text)
        with joined(port, room, "Alan") as alan:
            assert [message["text"] for message in alan.hears("chat.history")["messages"]] == ["one", "two"]


def test_people_are_listed_as_they_come_and_go(port: int, room: str, server: str) -> None:
    with joined(port, room, "Ada") as ada:
        ada.hears("chat.presence", server=server, people=["Ada"])
        with joined(port, room, "Alan") as alan:
            alan.hears("chat.presence", people=["Ada", "Alan"])
            ada.hears("chat.presence", people=["Ada", "Alan"])
        ada.hears("chat.presence", people=["Ada"])


def test_list_of_people_is_repeated(port: int, room: str) -> None:
    with joined(port, room, "Ada") as ada:
        for _ in range(2):
            ada.hears("chat.presence", people=["Ada"])


@pytest.mark.parametrize("frame", [{"text": ""}, {"text": "x" * 2001}, {"text": 5}, {}, []], ids=lambda _: "")
def test_what_is_no_message_ends_the_connection(port: int, room: str, frame: object) -> None:
    with joined(port, room, "Ada") as ada:
        ada.hears("chat.presence")
        ada.socket.send(json.dumps(frame))
        with pytest.raises(ConnectionClosed) as closed:
            ada.hears("chat.message")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400


@pytest.mark.parametrize("name", ["", "x" * 41], ids=["empty", "long"])
def test_name_must_fit(port: int, room: str, name: str) -> None:
    with pytest.raises(InvalidStatus, match="403"), joined(port, room, name):
        pass


@pytest.mark.parametrize("folder", CHATS)
def test_server_stops_quietly_with_pages_connected(folder: str, empty_database_url: str) -> None:
    port = free_port()
    with chat(folder, empty_database_url, port) as program, joined(port, "lobby", "Ada") as ada:
        ada.hears("chat.presence")
        program.process.send_signal(signal.SIGTERM)
        program.end()
    assert "Traceback" not in program.text()


def test_both_chats_share_their_rooms(empty_database_url: str) -> None:
    fastapi, django = free_port(), free_port()
    with (
        chat("fastapi_chat", empty_database_url, fastapi),
        chat("django_chat", empty_database_url, django),
        joined(fastapi, "lobby", "Ada") as ada,
        joined(django, "lobby", "Grace") as grace,
    ):
        ada.hears("chat.presence", server="django", people=["Grace"])
        grace.hears("chat.presence", server="fastapi", people=["Ada"])
        ada.say("over here")
        assert grace.hears("chat.message")["text"] == "over here"
        grace.say("and back")
        ada.hears("chat.message", text="and back", server="django")


@pytest.mark.parametrize("folder", CHATS)
def test_missing_url_is_named(folder: str) -> None:
    command = with_port(commands_of(folder)[-1], free_port())
    with running(command, folder=EXAMPLES / folder, environment={"PGCHANNELS_URL": ""}) as program:
        assert program.end() != 0
    assert "set PGCHANNELS_URL" in program.text()
