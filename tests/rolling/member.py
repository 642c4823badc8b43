"""A process that sends and receives all the time, on whichever version of pgchannels is on its path.

`python member.py URL NAME` prints `ready` when it receives, and with each line on standard input does what it says:

* `stop`: sends no more, and prints how many messages it has sent in each way;
* `finish` and the counts of all members as JSON: receives the rest, prints what it has received and ends.

Messages are pairs of the member's name and a number, so that whoever receives sees what is missing.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from pgchannels import Gap, MessageLayer
from pgchannels.django import PostgresChannelLayer

PAUSE_SECONDS = 0.002
LARGE = "x" * 9_000  # more than a notification takes
JOBS = "jobs"
WAYS = ("topic", "group", "queue")

Pair = tuple[str, int]


class Member:
    """What one process has sent and received."""

    def __init__(self, url: str, name: str) -> None:
        self.layer = MessageLayer(url, heartbeat=0.5)
        self.channels = PostgresChannelLayer(url, heartbeat=0.5)
        self.name = name
        self.sent = dict.fromkeys(WAYS, 0)
        self.received: dict[str, list[Pair]] = {way: [] for way in WAYS}
        self.gaps: list[str] = []
        self.arrived = asyncio.Event()

    async def run(self, lines: AsyncIterator[str]) -> None:
        """Send and receive until told otherwise."""
        async with self.layer, self.layer.subscribe("room", on_gap=self.note) as subscription:
            channel = await self.channels.new_channel()
            await self.channels.group_add("crowd", channel)
            receivers = {
                "topic": asyncio.create_task(self.collect("topic", lambda: anext(subscription))),
                "group": asyncio.create_task(self.collect("group", lambda: self.channels.receive(channel))),
                "queue": asyncio.create_task(self.collect("queue", self.job)),
            }
            print("ready", flush=True)
            senders = [asyncio.create_task(self.send(way)) for way in WAYS]
            async for line in lines:
                await self.obey(line, senders, receivers)
            await self.channels.group_discard("crowd", channel)
            await self.channels.close()

    async def obey(self, line: str, senders: list[Any], receivers: dict[str, Any]) -> None:
        """Do what a line says."""
        if line == "stop":
            for sender in senders:
                sender.cancel()
                with suppress(asyncio.CancelledError):
                    await sender
            print(json.dumps(self.sent), flush=True)
        else:
            totals = json.loads(line)
            for way in ("topic", "group"):
                await self.complete(way, {(name, counts[way] - 1) for name, counts in totals.items()})
            for receiver in receivers.values():
                receiver.cancel()
            await asyncio.gather(*receivers.values(), return_exceptions=True)
            print(json.dumps({"received": self.received, "gaps": self.gaps}), flush=True)

    async def send(self, way: str) -> None:
        """Send one message after another; every fifth is large. A number counts once its message is sent."""
        while True:
            number = self.sent[way]
            pair = [self.name, number, LARGE if number % 5 == 0 else ""]
            sending = asyncio.ensure_future(self.send_one(way, pair))
            try:
                await asyncio.shield(sending)
            finally:
                await sending
                self.sent[way] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def send_one(self, way: str, pair: list[Any]) -> None:
        if way == "topic":
            await self.layer.publish("room", pair)
        elif way == "group":
            await self.channels.group_send("crowd", {"type": "told", "pair": pair})
        else:
            await self.layer.send(JOBS, pair)

    async def job(self) -> Any:
        return await self.layer.receive(JOBS, on_gap=self.note)

    async def collect(self, way: str, receive: Callable[[], Awaitable[Any]]) -> None:
        """Receive and note all that comes."""
        while True:
            message = await receive()
            name, number, _ = message["pair"] if way == "group" else getattr(message, "payload", message)
            self.received[way].append((name, number))
            self.arrived.set()

    async def complete(self, way: str, last: set[Pair]) -> None:
        """Wait until the last message of each member has come."""
        while not last <= set(self.received[way]):
            self.arrived.clear()
            await self.arrived.wait()

    def note(self, gap: Gap) -> None:
        self.gaps.append(repr(gap))


async def lines() -> AsyncIterator[str]:
    """What comes on standard input."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


if __name__ == "__main__":
    asyncio.run(Member(*sys.argv[1:]).run(lines()))
