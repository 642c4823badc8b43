"""Sends beside listening processes, and reads what CPU time the server took, and how often its sessions woke."""

import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from benchmarks.model import HEARTBEAT_SECONDS, Counts
from benchmarks.share.measure import cpu_seconds
from pgchannels import MessageLayer, Subscription
from pgchannels.cli.crew import listening
from pgchannels.cli.listening import Order
from pgchannels.embedded import EmbeddedServer
from pgchannels.names import DEFAULT_SCHEMA

_PAYLOAD: Final = "x" * 200
_SENDERS: Final = 100
_SINGLES: Final = 200
_SINGLES_PER_SECOND: Final = 100
_BATCHES_PER_SECOND: Final = 10
_BATCH: Final = 100
_TOGETHER: Final = 18  # messages to one topic that follow each other share a notification
_END: Final = None
_CAPACITY: Final = 2**31 - 1
_EXPIRY_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What happened each second beside some processes, what CPU time it took, and how often their sessions woke.

    :param kind: what was sent: nothing ("idle"), "single" messages, "batches" to one topic, batches "heard" by all
        processes, as much as possible ("saturated"), or each message when the last has arrived ("one by one").
    :param processes: that listen, the one that sends among them.
    :param is_bare: the others are bare sessions, which have no heartbeats.
    :param wakes_seen: of the sessions that listen, by the operating system's count; the counts have all possible ones.
    """

    round_number: int
    kind: str
    processes: int
    is_bare: bool
    counts: Counts
    cores: float
    wakes_seen: float
    p50: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A server with listeners, and one more process that sends."""

    server: EmbeddedServer
    layer: MessageLayer
    subscription: Subscription
    round_number: int
    processes: int
    is_bare: bool
    listeners: Sequence[int]

    async def observe(self, kind: str, sending: Callable[[], Awaitable["Sent"]]) -> Observation:
        """Watch the server while something is sent."""
        cpu, wakes, begun = cpu_seconds(self.server.pid), _wakes(self.listeners), time.perf_counter()
        sent = await sending()
        seconds = time.perf_counter() - begun
        cores = (cpu_seconds(self.server.pid) - cpu) / seconds
        seen = (_wakes(self.listeners) - wakes) / seconds
        commits, beats = sent.commits / seconds, (1 if self.is_bare else self.processes) / HEARTBEAT_SECONDS
        happened = Counts(
            seconds=1,
            commits=commits,
            messages=sent.messages / seconds,
            beats=beats,
            wakes=(commits + beats) * self.processes,
            heard=sent.heard / seconds,
        )
        return Observation(
            self.round_number, kind, self.processes, self.is_bare, happened, cores, seen, sent.p50, sent.p99
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent, and how many processes got how many of it."""

    commits: int = 0
    messages: int = 0
    heard: int = 0
    p50: float | None = None
    p99: float | None = None


async def measure(
    server: EmbeddedServer, *, processes: int, seconds: float, round_number: int, is_bare: bool = False
) -> list[Observation]:
    """Measure all kinds of sending with so many listeners."""
    others = processes - 1
    prefix = f"many-{secrets.token_hex(4)}"
    url = server.url()
    async with AsyncExitStack() as stack:
        if is_bare:
            await stack.enter_async_context(bare_listeners(url, others))
        elif others:
            await stack.enter_async_context(listening(Order(url, DEFAULT_SCHEMA, prefix, others)))
        layer = MessageLayer(url, prefix=prefix, expiry=_EXPIRY_SECONDS, capacity=_CAPACITY)
        await stack.enter_async_context(layer)
        subscription = await stack.enter_async_context(layer.subscribe("room"))
        scene = Scene(server, layer, subscription, round_number, processes, is_bare, await _listeners(url))
        await _one_by_one(scene)  # warms up
        kinds: list[tuple[str, Callable[[], Awaitable[Sent]]]] = [
            ("idle", lambda: _nothing(2 * seconds)),
            ("single", lambda: _singles(scene, seconds)),
            ("batches", lambda: _batches(scene, seconds, ["room"])),
            ("saturated", lambda: _saturated(scene, seconds / 2)),
            ("one by one", lambda: _one_by_one(scene)),
        ]
        if others and not is_bare:
            topics = [f"idle.{number}" for number in range(others)]
            kinds.insert(3, ("heard", lambda: _batches(scene, seconds, topics)))
        return [await scene.observe(kind, sending) for kind, sending in kinds]


@asynccontextmanager
async def bare_listeners(url: str, count: int) -> AsyncIterator[None]:
    """Sessions that listen to a channel each, as a node does, and do nothing else."""
    held: list[asyncpg.Connection[asyncpg.Record]] = []
    try:
        for number in range(count):
            connection = await asyncpg.connect(url)
            held.append(connection)
            await connection.execute(f'LISTEN "bare-{number}"')
        yield
    finally:
        for connection in held:
            connection.terminate()


async def _nothing(seconds: float) -> Sent:
    await asyncio.sleep(seconds)
    return Sent()


async def _singles(scene: Scene, seconds: float) -> Sent:
    count = int(seconds * _SINGLES_PER_SECOND)
    begun = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0, begun + number / _SINGLES_PER_SECOND - time.perf_counter()))
        await scene.layer.publish("room", _PAYLOAD)
        await anext(scene.subscription)
    return Sent(commits=count, messages=count, heard=count)


async def _batches(scene: Scene, seconds: float, topics: Sequence[str]) -> Sent:
    """Batches, each of as many messages: in turn to these topics, each of which one process hears."""
    count = int(seconds * _BATCHES_PER_SECOND)
    batch = [(topics[number % len(topics)], _PAYLOAD) for number in range(_BATCH)]
    begun = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0, begun + number / _BATCHES_PER_SECOND - time.perf_counter()))
        await scene.layer.publish_many(batch)
        for topic, _ in batch:
            if topic == "room":
                await anext(scene.subscription)
    together = _TOGETHER if len(topics) == 1 else 1
    return Sent(commits=count, messages=count * _BATCH, heard=count * _BATCH // together)


async def _saturated(scene: Scene, seconds: float) -> Sent:
    until = time.perf_counter() + seconds

    async def send() -> None:
        while time.perf_counter() < until:
            await scene.layer.publish("room", _PAYLOAD)

    async def send_all() -> None:
        await asyncio.gather(*[send() for _ in range(_SENDERS)])
        await scene.layer.publish("room", _END)

    sending = asyncio.create_task(send_all())
    published, received = set(), 0
    while (message := await anext(scene.subscription)).payload is not _END:
        published.add(message.published_at)
        received += 1
    await sending
    return Sent(commits=len(published), messages=received, heard=max(len(published), received // _TOGETHER))


async def _one_by_one(scene: Scene) -> Sent:
    seconds = []
    for _ in range(_SINGLES):
        begun = time.perf_counter()
        await scene.layer.publish("room", _PAYLOAD)
        await anext(scene.subscription)
        seconds.append(time.perf_counter() - begun)
    p99 = statistics.quantiles(seconds, n=100)[98]
    return Sent(_SINGLES, _SINGLES, _SINGLES, p50=statistics.median(seconds), p99=p99)


async def _listeners(url: str) -> list[int]:
    """The process IDs of the sessions that listen."""
    connection = await asyncpg.connect(url)
    try:
        bare = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN \"bare-%'"
        return [pid for (pid,) in await connection.fetch(f"SELECT pid FROM pgchannels.node UNION {bare}")]
    finally:
        await connection.close()


def _wakes(sessions: Sequence[int]) -> int:
    """How often these processes have waited for something, and woken."""
    return sum(_voluntary_switches(session) for session in sessions)


def _voluntary_switches(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches")]
    return int(line.split()[1])
