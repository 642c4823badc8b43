"""A person in a room of a chat server, without a browser."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from websockets.sync.client import ClientConnection, connect

from tests.support.programs import LIMIT_SECONDS


class Person:
    """Somebody with a connection to a room."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def say(self, text: str) -> None:
        self.socket.send(json.dumps({"text": text}))

    def hears(self, type_: str, **expected: object) -> dict[str, Any]:
        """The next message of this type with these values; those before it are passed over."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            message: dict[str, Any] = json.loads(self.socket.recv(timeout=max(0, deadline - time.monotonic())))
            if message["type"] == type_ and message.items() >= expected.items():
                return message


@contextmanager
def joined(port: int, room: str, name: str) -> Iterator[Person]:
    """Somebody in a room of the server at this port, until the end of the block."""
    address = f"ws://127.0.0.1:{port}/ws/{room}?name={quote(name)}"
    # No max_queue: who does not listen could not close the connection either.
    with connect(address, open_timeout=LIMIT_SECONDS, close_timeout=LIMIT_SECONDS, max_queue=None) as socket:
        yield Person(socket)
