"""A subscriber that leaves at any moment, and resumes from its last position."""

import asyncio
from dataclasses import dataclass, field
from random import Random

from pgchannels import Message, MessageLayer, Position
from tests.support.waiting import steps

_MOST_STEPS = 200
_MOST_MESSAGES = 400


@dataclass(slots=True)
class Resuming:
    """Reads one topic in many parts; a gap, which there must not be, is raised."""

    layer: MessageLayer
    topic: str
    since: Position
    chance: Random
    received: list[Message] = field(default_factory=list)
    leaves: int = 0

    async def read(self, count: int) -> None:
        """Receive so many messages."""
        while len(self.received) < count:
            reading = asyncio.create_task(self._read_part(count))
            if self.chance.random() < 0.5:  # anywhere: while it enters, reads old messages, or waits for new ones
                await steps(self.chance.randrange(_MOST_STEPS))
                reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.result()
            self.leaves += 1

    async def _read_part(self, count: int) -> None:
        left = self.chance.randint(1, _MOST_MESSAGES)
        last = self.received[-1].position if self.received else self.since
        async with self.layer.subscribe(self.topic, since=str(last), capacity=100_000) as subscription:
            while left > 0 and len(self.received) < count:
                self.received.append(await anext(subscription))
                left -= 1
