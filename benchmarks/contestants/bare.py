"""The limit: the SQL of pgchannels by asyncpg, with as little Python around it as delivers the same messages.

It promises nothing: no reconnect, no catching up, no capacity, no retries.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import asyncpg
import msgpack

from benchmarks.contestants.contestant import Addresses, Contestant, Member, Message

_PART_BYTES = 4_000
_DELIVER = "SELECT * FROM pgchannels.deliver($1, $2, $3, NULL, $4, NULL, $5, 60)"
_HOST = "SELECT position FROM pgchannels.host($1, 0, NULL, $2, '{}', false)"


class Bare(Contestant):
    """`deliver()` on one connection, LISTEN on another; who sends at the same time must send as one batch."""

    def __init__(self, addresses: Addresses, *, capacity: int) -> None:
        super().__init__(addresses, capacity=capacity)
        self._node = uuid4()
        self._calls = 0
        self._writer: asyncpg.Connection[asyncpg.Record] | None = None
        self._listener: asyncpg.Connection[asyncpg.Record] | None = None
        self._queues: dict[str, list[asyncio.Queue[bytes]]] = {}

    async def open(self) -> None:
        self._writer = await asyncpg.connect(self.addresses.postgres)
        self._listener = await asyncpg.connect(self.addresses.postgres)
        await self._listener.add_listener(str(self._node), self._hear)
        await self._writer.execute(
            "INSERT INTO pgchannels.node VALUES ($1, $2, now() + interval '1 hour')",
            self._node,
            str(self._node),
        )
        self._statement = await self._writer.prepare(_DELIVER)

    async def close(self) -> None:
        if self._writer is None or self._listener is None:
            return
        await self._writer.execute("SELECT pgchannels.remove_nodes(ARRAY[$1]::uuid[])", self._node)
        self._writer.terminate()
        self._listener.terminate()

    async def join(self, group: str) -> Member:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.setdefault(_address(group), []).append(queue)
        assert self._writer is not None
        await self._writer.fetchval(_HOST, self._node, [_address(group)])
        return Queued(queue)

    async def publish(self, group: str, message: Message) -> None:
        await self.publish_batch(group, [message])

    async def publish_batch(self, group: str, messages: Sequence[Message]) -> None:
        """Send messages with one call."""
        self._calls += 1
        count = len(messages)
        packed = [msgpack.packb(message) for message in messages]
        await self._statement.fetchrow(
            hash((self._node, self._calls)),
            time.time() + 10,
            [_address(group)] * count,
            packed,
            _parts(count, max(1, _PART_BYTES // len(packed[0]))),
        )

    def _hear(self, _connection: object, _pid: int, _channel: str, text: Any) -> None:
        _kind, _time, address, *messages = text.split(" ")
        for body in messages[2::3]:
            envelope = base64.b64decode(body)
            for queue in self._queues.get(address, ()):
                queue.put_nowait(envelope)


class Queued(Member):
    """A queue of what came to a group."""

    def __init__(self, queue: "asyncio.Queue[bytes]") -> None:
        self._queue = queue

    async def receive(self) -> Message:
        message: Message = msgpack.unpackb(await self._queue.get())
        return message

    async def leave(self) -> None:
        """It gets on no one's nerves until the end."""


def _parts(count: int, size: int) -> list[int]:
    """The first message of each part has the number of its last, the others have 0; see `deliver.sql`."""
    return [0 if number % size else min(number + size, count) for number in range(count)]


def _address(group: str) -> str:
    return f"topic:asgi:{group}"
