"""A process that plays parts of works with one contestant: `python -m benchmarks.actor CONTESTANT`.

It says on stdout when it is ready. A request is then a line of JSON on stdin, an answer a line of JSON on stdout. Each
part is played in a fork: a process that has the library imported and has done nothing yet. A part that calls
`Stage.ready` answers twice: before the second answer it waits for another line, so that parts of several processes
begin together.
"""

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, TextIO

from benchmarks.contestants import Addresses, Contestant, load, make
from benchmarks.contestants.contestant import CannotDo
from benchmarks.keeper import die_with

Part = Callable[..., Awaitable[dict[str, Any]]]

_STDIN = 0
_CLOSE_LIMIT_SECONDS = 5


class Stage:
    """What a part gets: a contestant that is not open yet, and a way to wait for the others."""

    def __init__(self, contestant: Contestant, replies: TextIO) -> None:
        self.contestant = contestant
        self._replies = replies

    async def ready(self) -> None:
        """Tell the work that this part is ready; returns when all parts are."""
        _say(self._replies, {"ready": {}})
        await asyncio.to_thread(_next_line)


def serve(replies: TextIO) -> None:
    """Play one part after the other until stdin closes."""
    # A full collection in a fork copies all that was imported, and chance would decide in whose figures that is.
    gc.collect()
    gc.freeze()
    while line := _next_line():
        actor = os.getpid()
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            die_with(actor)
            _say(replies, _answer(json.loads(line), replies))
            os._exit(0)


def _answer(request: dict[str, Any], replies: TextIO) -> dict[str, Any]:
    try:
        return {"figures": asyncio.run(_play(request, replies))}
    except CannotDo as reason:
        return {"failed": str(reason)}
    except Exception:
        return {"failed": traceback.format_exc(limit=-3)}


async def _play(request: dict[str, Any], replies: TextIO) -> dict[str, Any]:
    module, _, function = request["part"].rpartition(".")
    part: Part = getattr(import_module(module), function)
    addresses = Addresses(**request["addresses"])
    contestant = make(request["contestant"], addresses, capacity=request["capacity"])
    try:
        return await part(Stage(contestant, replies), **request["arguments"])
    finally:
        await _close(contestant)


async def _close(contestant: Contestant) -> None:
    # Some libraries wait for ever for what was not received; what is left over ends with the process.
    try:
        async with asyncio.timeout(_CLOSE_LIMIT_SECONDS):
            await contestant.close()
    except TimeoutError:
        traceback.print_exc()


def _next_line() -> str:
    # Byte by byte: what is behind the line is for the other process.
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(_STDIN, 1)):
            return ""
        line += byte
    return line.decode()


def _say(replies: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    die_with(os.getppid())
    load(sys.argv[1])
    # What libraries print must not reach the replies.
    with os.fdopen(os.dup(1), "w") as own_output:
        os.dup2(2, 1)
        _say(own_output, {"ready": {}})
        serve(own_output)
