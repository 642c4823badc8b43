"""Processes that listen and hear nothing, for `pgchannels bench --processes`.

`main` reads on the standard input which database they listen to, and how many they are. It forks them, since a fork is
quickly made and shares its memory. Each says when it listens. All end with that input, so also when the process that
holds its other end is killed.
"""

import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import Final, Self

from pgchannels.layer import MessageLayer

READY: Final = "ready"
_PAUSE_SECONDS: Final = 0.1  # between the openings of two: each wakes all others
_LONGEST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class Order:
    """What the processes do."""

    url: str
    schema: str
    prefix: str
    processes: int

    def to_line(self) -> bytes:
        """Return it as a line for their standard input: a command line would show the password."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Undo `to_line`."""
        return cls(**json.loads(line))


def main() -> None:
    """Fork the processes, and wait until all have ended."""
    order = Order.from_line(sys.stdin.readline())
    children = []
    try:
        for number in range(order.processes):
            if (child := os.fork()) == 0:
                _run(order, number)
            children.append(child)
    except OSError as error:
        _tell(f"the system starts no more processes: {error}")
    for child in children:
        os.waitpid(child, 0)


def _run(order: Order, number: int) -> None:
    try:
        asyncio.run(_listen(order, number))
    except asyncio.CancelledError:
        pass  # the end of the input
    except Exception as error:
        _tell(f"{error}")
    finally:
        os._exit(0)  # what else there is belongs to the process that forked


async def _listen(order: Order, number: int) -> None:
    loop, task, end = asyncio.get_running_loop(), asyncio.current_task(), sys.stdin.fileno()
    assert task is not None

    def stop() -> None:
        loop.remove_reader(end)
        task.cancel()

    loop.add_reader(end, stop)
    await asyncio.sleep(number * _PAUSE_SECONDS)
    layer = MessageLayer(order.url, schema=order.schema, prefix=order.prefix, connections=2)
    async with layer, layer.subscribe(f"idle.{number}"):
        _tell(READY)
        await asyncio.Event().wait()


def _tell(text: str) -> None:
    line = " ".join(text.split())[:_LONGEST_TEXT]
    os.write(sys.stdout.fileno(), f"{line}\n".encode())  # at once, or lines of several processes would mix
