"""The traffic of the soak, and the ledger of what was sent and what came."""

import asyncio
import struct
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from typing import Any, Final

from pgchannels import Gap, MessageLayer
from pgchannels.subscription import Subscription


class Kind(StrEnum):
    """Where a message goes."""

    TOPIC = "topic"
    UNHEARD = "topic without subscribers"
    CHANNEL = "channel"
    QUEUE = "work queue"


STREAMS: Final = {Kind.TOPIC: 22, Kind.UNHEARD: 10, Kind.CHANNEL: 12, Kind.QUEUE: 6}
QUEUE_RECEIVERS: Final = 6
SMALL_BYTES: Final = 200
LARGE_BYTES: Final = 9_000
ONE_LARGE_IN: Final = 50
MOST_UNDER_WAY: Final = 64
STALL_SECONDS: Final = 30

_HEAD: Final = struct.Struct("!HQ")
_QUEUE: Final = "soak.jobs"

Latencies = dict[Kind, "array[float]"]


class Stream:
    """The messages of one sender to one destination: numbers them, and knows which are still under way."""

    def __init__(self, number: int, kind: Kind, send: Callable[[bytes], Awaitable[object]]) -> None:
        self.kind = kind
        self.sent = 0
        self.duplicates = 0
        self.out_of_order = 0
        self._number = number
        self._latest = -1
        self._send = send
        self._sent_at: dict[int, float] = {}
        self._room = asyncio.Semaphore(MOST_UNDER_WAY)

    @property
    def under_way(self) -> int:
        """How many messages have been sent and not received."""
        return len(self._sent_at)

    async def send(self) -> int:
        """Send the next message, once few enough are under way; returns the bytes of its payload."""
        await self._room.acquire()
        number, payload = self.sent, self._next_payload()
        self.sent += 1
        self._sent_at[number] = time.perf_counter()
        await self._send(payload)
        if self.kind is Kind.UNHEARD:
            self.receive(number)
        return len(payload)

    def receive(self, number: int) -> float | None:
        """Note that a message came; returns the seconds since it was sent, or None when it came before."""
        if number not in self._sent_at:
            self.duplicates += 1
            return None
        if self.kind is not Kind.QUEUE and number < self._latest:
            self.out_of_order += 1
        self._latest = number
        self._room.release()
        return time.perf_counter() - self._sent_at.pop(number)

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        for _ in range(MOST_UNDER_WAY):
            await self._room.acquire()

    def _next_payload(self) -> bytes:
        is_large = (self.sent + self._number) % ONE_LARGE_IN == 0
        return _HEAD.pack(self._number, self.sent).ljust(LARGE_BYTES if is_large else SMALL_BYTES, b"\xa5")


class Window:
    """How many bytes were published within the last seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._bytes = 0
        self._published: deque[tuple[float, int]] = deque()

    def add(self, size: int) -> None:
        """Count what has just been published."""
        self._published.append((time.perf_counter(), size))
        self._bytes += size

    def bytes_now(self) -> int:
        """The bytes of the window that ends now."""
        begin = time.perf_counter() - self._seconds
        while self._published and self._published[0][0] < begin:
            self._bytes -= self._published.popleft()[1]
        return self._bytes


class Traffic:
    """All streams through one layer; a round is one message from each, all at the same time."""

    def __init__(self, layer: MessageLayer, *, window_seconds: float, messages_per_second: float) -> None:
        self.published = 0
        self.payload_bytes = 0
        self.window = Window(window_seconds)
        self.streams: list[Stream] = []
        self.gaps: list[Gap] = []
        self._layer = layer
        self._messages_per_second = messages_per_second
        self._latencies = _no_latencies()
        self._milestones: dict[int, asyncio.Event] = {}

    async def send(self, messages: int) -> None:
        """Send this many messages, rounded up to whole rounds, and wait until all have come.

        :raises TimeoutError: what was sent does not come, or the layer takes no more.
        """
        seconds = len(self.streams) / self._messages_per_second if self._messages_per_second else 0
        due = time.perf_counter()
        while self.published < messages:
            await asyncio.sleep(due - time.perf_counter())
            due = max(due + seconds, time.perf_counter())  # a delay is not made up for: no burst follows it
            await self._send_round()
        async with asyncio.timeout(STALL_SECONDS):
            for stream in self.streams:
                await stream.settle()

    async def reached(self, messages: int) -> None:
        """Wait until this many have been published."""
        if self.published < messages:
            await self._milestones.setdefault(messages, asyncio.Event()).wait()

    def take_latencies(self) -> Latencies:
        """Seconds from call to delivery of all that came since the last time."""
        taken, self._latencies = self._latencies, _no_latencies()
        return taken

    @asynccontextmanager
    async def received(self) -> AsyncIterator[None]:
        """Make the streams, and receive what they send for as long as the block."""
        async with AsyncExitStack() as stack:
            receivers = await self._open(stack)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(receiver) for receiver in receivers]
                yield
                for task in tasks:
                    task.cancel()

    async def _open(self, stack: AsyncExitStack) -> list[Coroutine[Any, Any, None]]:
        receivers: list[Coroutine[Any, Any, None]] = []
        for number in range(STREAMS[Kind.TOPIC]):
            topic = f"soak.{number}"
            subscription = await stack.enter_async_context(self._layer.subscribe(topic, on_gap=self.gaps.append))
            self._add(Kind.TOPIC, self._layer.publish, topic)
            receivers.append(self._hear(subscription))
        for number in range(STREAMS[Kind.UNHEARD]):
            self._add(Kind.UNHEARD, self._layer.publish, f"soak.unheard.{number}")
        for _ in range(STREAMS[Kind.CHANNEL]):
            channel = await self._layer.new_channel()
            self._add(Kind.CHANNEL, self._layer.send, channel)
            receivers.append(self._drain(channel))
        for _ in range(STREAMS[Kind.QUEUE]):
            self._add(Kind.QUEUE, self._layer.send, _QUEUE)
        return receivers + [self._drain(_QUEUE) for _ in range(QUEUE_RECEIVERS)]

    def _add(self, kind: Kind, send: Callable[[str, bytes], Awaitable[object]], name: str) -> None:
        self.streams.append(Stream(len(self.streams), kind, lambda payload: send(name, payload)))

    async def _send_round(self) -> None:
        async with asyncio.timeout(STALL_SECONDS), asyncio.TaskGroup() as group:
            for stream in self.streams:
                group.create_task(self._send_next(stream))
        for messages, milestone in self._milestones.items():
            if self.published >= messages:
                milestone.set()

    async def _send_next(self, stream: Stream) -> None:
        size = await stream.send()
        self.published += 1
        self.payload_bytes += size
        self.window.add(size)

    async def _hear(self, subscription: Subscription) -> None:
        async for message in subscription:
            self._note(message.payload)

    async def _drain(self, channel: str) -> None:
        while True:
            self._note(await self._layer.receive(channel, on_gap=self.gaps.append))

    def _note(self, payload: bytes) -> None:
        stream, number = _HEAD.unpack_from(payload)
        seconds = self.streams[stream].receive(number)
        if seconds is not None:
            self._latencies[self.streams[stream].kind].append(seconds)


def _no_latencies() -> Latencies:
    return {kind: array("f") for kind in Kind}
