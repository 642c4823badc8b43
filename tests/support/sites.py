"""Web servers with an application of ours, their clients, and what they leave behind."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.request import Request, urlopen

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.programs import LIMIT_SECONDS, Program, eventually, free_port, running

STOP_SECONDS: Final = 10  # it takes a fraction of one, on a machine that has nothing else to do
# Beside an application `main`, on which nothing may depend.
OBSERVED: Final = """
import asyncio
from main import app, layer
from pgchannels.receiving.mailbox import Mailbox

@app.get("/state")
async def state() -> dict[str, int]:
    routes = layer._process.here().receiver.router._routes.values()
    begun = [one for route in routes for one in route.recipients.values()]
    recipients = [*begun, *(one for route in routes for _, one in route.beginning.values())]
    return {
        "tasks": len(asyncio.all_tasks()),
        "subscriptions": len({id(one) for one in recipients if isinstance(one, Mailbox)}),  # that have begun
    }
"""


class Site:
    """A server with an application."""

    def __init__(self, program: Program, port: int) -> None:
        self.program = program
        self.port = port

    def post(self, path: str) -> Any:
        """What is answered."""
        request = Request(f"http://127.0.0.1:{self.port}{path}", method="POST")
        with urlopen(request, timeout=LIMIT_SECONDS) as answer:
            return json.load(answer)

    def state(self) -> dict[str, int]:
        """How many tasks and subscriptions the server has."""
        with urlopen(f"http://127.0.0.1:{self.port}/state", timeout=LIMIT_SECONDS) as answer:
            state: dict[str, int] = json.load(answer)
            return state

    def has_subscriptions(self, count: int) -> None:
        """Wait until it has so many."""
        eventually(lambda: self.state()["subscriptions"] == count)

    def connect(self, path: str, **options: Any) -> ClientConnection:
        """A client."""
        client: ClientConnection = connect(f"ws://127.0.0.1:{self.port}{path}", open_timeout=LIMIT_SECONDS, **options)
        return client

    def events(self, path: str, **headers: str) -> "Events":
        """A client that listens to events."""
        return Events(self.port, path, headers)

    def stop(self, *, within_seconds: float = STOP_SECONDS) -> None:
        """Tell the server to stop, and require that it does, at once and without a complaint."""
        self.program.process.send_signal(signal.SIGTERM)
        try:
            self.program.process.wait(within_seconds)
        except subprocess.TimeoutExpired:
            pytest.fail("the server does not stop")
        self.program.end()
        assert "Traceback" not in self.program.text()
        assert "ERROR" not in self.program.text()
        assert "Finished server process" in self.program.text()


class Events:
    """A browser's `EventSource`."""

    def __init__(self, port: int, path: str, headers: Mapping[str, str]) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
        self._connection.request("GET", path, headers=dict(headers))
        self.answer: HTTPResponse = self._connection.getresponse()
        self.last_id = headers.get("Last-Event-ID", "")

    def block(self) -> dict[str, str] | None:
        """The fields of the next event, with comments under an empty name; None at the end of the stream."""
        fields: dict[str, str] = {}
        while (line := self.answer.readline().decode()) != "\n":
            if not line:
                return None
            name, _, value = line.rstrip("\n").partition(": " if line[0] != ":" else ":")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        self.last_id = fields.get("id", self.last_id)
        return fields

    def next(self) -> dict[str, str]:
        """The next event that a page would see."""
        while (fields := self.block()) is not None:
            if "data" in fields and fields.get("event") != "since":
                return fields
        raise AssertionError("the stream has ended")

    def payload(self) -> Any:
        """That of the next event, which must be a message."""
        fields = self.next()
        assert "event" not in fields, fields
        return json.loads(fields["data"])["payload"]

    def close(self) -> None:
        self.answer.close()
        self._connection.close()

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def serving(folder: Path, *options: str, module: str, port: int | None = None, **environment: str) -> Iterator[Site]:
    """A uvicorn with the application of a module in the folder; it gets an observer of `main` beside it."""
    (folder / "observed.py").write_text(OBSERVED)
    port = port or free_port()
    command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port), *options]
    with running(command, folder=folder, environment=environment) as program:
        program.line("Application startup complete")
        program.line("Uvicorn running")
        yield Site(program, port)
