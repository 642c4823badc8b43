"""Publishes over some servers, and reads from /proc what CPU time each of them took."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pgchannels import MessageLayer, Subscription
from pgchannels.embedded import EmbeddedServer

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_TOPICS: Final = 1_000
_BATCH: Final = 200  # for each server
_PAYLOAD: Final = "x" * 200


@dataclass(frozen=True, slots=True)
class Share:
    """What each server did of some messages, and the CPU time that it took."""

    round_number: int
    messages: list[int]
    cpu_seconds: list[float]

    @property
    def microseconds_per_message(self) -> float:
        """Of all servers together."""
        return 1e6 * sum(self.cpu_seconds) / sum(self.messages)

    def __str__(self) -> str:
        pairs = zip(self.messages, self.cpu_seconds, strict=True)
        shares = ", ".join(f"{messages:,} in {seconds:.2f} s" for messages, seconds in pairs)
        return f"{len(self.messages)} servers: {self.microseconds_per_message:.1f} µs per message ({shares})"


async def measure(servers: Sequence[EmbeddedServer], *, messages: int, round_number: int) -> Share:
    """Publish so many messages to a thousand topics, with a subscriber to all of them."""
    names = [f"server{number}" for number in range(len(servers))]
    layer = MessageLayer(dict(zip(names, (server.url() for server in servers), strict=True)))
    topics = [f"room.{number}" for number in range(_TOPICS)]
    sent = dict.fromkeys(names, 0)
    async with layer, layer.subscribe(*topics, capacity=2 * messages) as subscription:
        receiving = asyncio.create_task(_receive(subscription))
        await layer.publish_many([(topic, _PAYLOAD) for topic in topics])
        before = [cpu_seconds(server.pid) for server in servers]
        batch = _BATCH * len(servers)
        for begin in range(0, messages, batch):
            part = [(topics[number % _TOPICS], _PAYLOAD) for number in range(begin, min(begin + batch, messages))]
            for position in await layer.publish_many(part):
                sent[position.server] += 1
        after = [cpu_seconds(server.pid) for server in servers]
        receiving.cancel()
        await asyncio.wait([receiving])
    took = [end - begin for begin, end in zip(before, after, strict=True)]
    return Share(round_number, [sent[name] for name in names], took)


async def _receive(subscription: Subscription) -> None:
    async for _ in subscription:
        pass


def cpu_seconds(postmaster: int) -> float:
    """The CPU time of a server until now: of the postmaster, of its children, and of those that have ended."""
    ticks = sum(_ticks(postmaster, and_of_ended_children=True))
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return (ticks + sum(sum(_ticks(int(child))) for child in children)) / _TICKS_PER_SECOND


def _ticks(process: int, *, and_of_ended_children: bool = False) -> list[int]:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # it has just ended
        return []
    return [int(field) for field in fields[11 : 15 if and_of_ended_children else 13]]
