"""Measures what a database carries, for `pgchannels bench`."""

import asyncio
import json
import os
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from pgchannels.cli.crew import Room, listening, room_for
from pgchannels.cli.listening import Order
from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.database.statements.measuring import explained_delivery
from pgchannels.database.statements.nodes import remove_nodes_of
from pgchannels.database.statements.sending import remove_all_messages
from pgchannels.layer import MessageLayer
from pgchannels.names import topic_address
from pgchannels.receiving.arrival import GREATEST_ID
from pgchannels.sending.backlog import notification_parts
from pgchannels.sending.outgoing import Outgoing
from pgchannels.subscription import Subscription

BATCH: Final = 100
_ONE_BY_ONE: Final = 300
_DELIVERIES: Final = 50
_EXPIRY_SECONDS: Final = 10
_UNBOUNDED: Final = 2**31 - 1
_LIMIT_SECONDS: Final = 60
_CLEAR_SECONDS: Final = 30
_END: Final = None


@dataclass(frozen=True, slots=True)
class Carried:
    """What the database carried, from one process to one subscriber; latencies in seconds."""

    messages_per_second: float
    commits_per_second: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The results; the seconds are for the database alone and per message."""

    alone: Carried
    delivery_alone: float
    delivery_in_batch: float
    beside: "Beside | None" = None


@dataclass(frozen=True, slots=True)
class Beside:
    """What it carried beside processes that listen, and what room the server had for them."""

    processes: int
    carried: Carried
    room: Room


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent, and received again."""

    layer: MessageLayer
    subscription: Subscription
    payload: bytes
    senders: int
    seconds: float


async def measure(url: str, schema: str, senders: int, seconds: float, size: int, *, processes: int = 0) -> Measured:
    """Measure everything, on topics that nobody else knows, and remove what was sent."""
    prefix, payload = f"bench-{secrets.token_hex(8)}", os.urandom(size)
    beside: Beside | None = None
    async with _connections(url, schema, prefix) as connections:
        room = await room_for(connections, processes) if processes else None
        layer = MessageLayer(url, schema=schema, prefix=prefix, expiry=_EXPIRY_SECONDS, capacity=_UNBOUNDED)
        async with layer, layer.subscribe("bench") as subscription:
            traffic = Traffic(layer, subscription, payload, senders, seconds)
            async with asyncio.timeout(_LIMIT_SECONDS + 2 * seconds):
                await _seconds_each(traffic, _ONE_BY_ONE // 10)  # warms up
                alone = await _carried(traffic)
            if room is not None:
                async with listening(Order(url, schema, prefix, processes)):
                    async with asyncio.timeout(_LIMIT_SECONDS + 2 * seconds):
                        beside = Beside(processes, await _carried(traffic), room)
            async with asyncio.timeout(_LIMIT_SECONDS):
                address = topic_address(prefix, "bench")  # last: what arrives from now on cannot be read
                delivered = [await _delivery_seconds(connections, address, payload, count) for count in (1, BATCH)]
    return Measured(alone, delivered[0], delivered[1], beside)


@asynccontextmanager
async def _connections(url: str, schema: str, prefix: str) -> AsyncIterator[Connections]:
    connections = Connections(Database(url), schema)
    try:
        yield connections
    except BaseException:
        with suppress(Exception):  # what ended the measuring is what counts
            await _cleared(connections, prefix)
        raise
    else:
        await _cleared(connections, prefix)
    finally:
        await connections.close()


async def _cleared(connections: Connections, prefix: str) -> None:
    async with asyncio.timeout(_CLEAR_SECONDS):
        await connections.ask(remove_all_messages, prefix)
        await connections.ask(remove_nodes_of, prefix)  # those that could not do it themselves


async def _carried(traffic: Traffic) -> Carried:
    messages, commits = await _rates(traffic)
    latencies = await _seconds_each(traffic, _ONE_BY_ONE)
    return Carried(messages, commits, statistics.median(latencies), statistics.quantiles(latencies, n=100)[98])


async def _rates(traffic: Traffic) -> tuple[float, float]:
    """Messages and commits a second: all messages of a commit were published at the same time."""
    started = time.perf_counter()
    sending = asyncio.create_task(_send_all(traffic, started + traffic.seconds))
    received = commits = 0
    latest = None
    try:
        while (message := await anext(traffic.subscription)).payload is not _END:
            received += 1
            commits += message.published_at != latest
            latest = message.published_at
        await sending
    finally:
        sending.cancel()
        await asyncio.wait([sending])
    seconds = time.perf_counter() - started
    return received / seconds, commits / seconds


async def _send_all(traffic: Traffic, until: float) -> None:
    await asyncio.gather(*[_send(traffic, until) for _ in range(traffic.senders)])
    await traffic.layer.publish("bench", _END)


async def _send(traffic: Traffic, until: float) -> None:
    while time.perf_counter() < until:
        await traffic.layer.publish("bench", traffic.payload)


async def _seconds_each(traffic: Traffic, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await traffic.layer.publish("bench", traffic.payload)
        await anext(traffic.subscription)
        seconds.append(time.perf_counter() - started)
    return seconds


async def _delivery_seconds(connections: Connections, address: str, payload: bytes, count: int) -> float:
    """The database's median seconds per message, in batches of `count`: by its own clock, without the commit."""
    held = connections.hold()
    connection = await held.opened()
    try:
        statement = await connection.prepare(explained_delivery(connections.schema))
        addresses, envelopes = [address] * count, [payload] * count
        batch = addresses, None, envelopes, None, notification_parts([Outgoing(address, None, payload)] * count)
        seconds = [await _explained_seconds(statement, connections, *batch) for _ in range(_DELIVERIES)]
    finally:
        await held.close()
    return statistics.median(seconds) / count


async def _explained_seconds(
    statement: "asyncpg.prepared_stmt.PreparedStatement[asyncpg.Record]", connections: Connections, *batch: object
) -> float:
    valid_until = connections.database_time() + _EXPIRY_SECONDS
    plan = await statement.fetchval(
        secrets.randbits(63), valid_until, *batch, float(_EXPIRY_SECONDS), GREATEST_ID, None, None
    )
    milliseconds: float = json.loads(plan)[0]["Execution Time"]
    return milliseconds / 1000
