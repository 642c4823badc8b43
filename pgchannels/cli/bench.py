"""`pgchannels bench`: measures what this database carries through pgchannels, from this machine."""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import asyncpg

from pgchannels.arguments import require_count, require_seconds
from pgchannels.cli.target import add_target, require_url
from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.database.statements.measuring import explained_delivery
from pgchannels.database.statements.sending import remove_all_messages
from pgchannels.errors import DatabaseUnavailable
from pgchannels.layer import MessageLayer
from pgchannels.names import topic_address
from pgchannels.receiving.arrival import GREATEST_ID
from pgchannels.sending.backlog import notification_parts
from pgchannels.sending.outgoing import Outgoing
from pgchannels.subscription import Subscription

_ONE_BY_ONE: Final = 300
_DELIVERIES: Final = 50
_BATCH: Final = 100
_EXPIRY_SECONDS: Final = 10
_UNBOUNDED: Final = 2**31 - 1
_LIMIT_SECONDS: Final = 60
_END: Final = None
_MOST_SENDERS, _MOST_SECONDS, _MOST_BYTES = 10_000, 60.0, 1_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """The results; all but the rate in seconds, the last two for the database alone and per message."""

    messages_per_second: float
    p50: float
    p99: float
    delivery_alone: float
    delivery_in_batch: float


def add_bench_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("bench", help="measure what a database carries; leaves nothing behind in it")
    add_target(parser)
    parser.add_argument("--senders", type=int, default=100, help="that send at the same time (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="for which they send (default: %(default)s)")
    parser.add_argument("--size", type=int, default=200, help="bytes of a payload (default: %(default)s)")
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    url = require_url(arguments)
    require_count("--senders", arguments.senders, most=_MOST_SENDERS, of="senders")
    require_seconds("--seconds", arguments.seconds, most=_MOST_SECONDS)
    require_count("--size", arguments.size, most=_MOST_BYTES, of="bytes")
    measuring = measure(url, arguments.schema, arguments.senders, arguments.seconds, arguments.size)
    try:
        measured = asyncio.run(measuring)
    except TimeoutError:
        raise DatabaseUnavailable(
            "the database is too slow to be measured: it did not keep up with few messages"
        ) from None
    print(f"{arguments.senders} senders, one subscriber   {measured.messages_per_second:,.0f} messages/s")
    print(f"one after another          p50 {_told(measured.p50)}, p99 {_told(measured.p99)} from call to delivery")
    print(f"in the database            {_told(measured.delivery_alone)} for a message that is sent by itself,")
    print(f"                           {_told(measured.delivery_in_batch)} each for {_BATCH} that are sent together")
    return 0


async def measure(url: str, schema: str, senders: int, seconds: float, size: int) -> Measured:
    """Measure everything, on topics that nobody else knows, and remove what was sent."""
    prefix, payload = f"bench-{secrets.token_hex(8)}", os.urandom(size)
    async with _connections(url, schema, prefix) as connections:
        layer = MessageLayer(url, schema=schema, prefix=prefix, expiry=_EXPIRY_SECONDS, capacity=_UNBOUNDED)
        async with asyncio.timeout(_LIMIT_SECONDS + 2 * seconds), layer, layer.subscribe("bench") as subscription:
            await _seconds_each(layer, subscription, payload, _ONE_BY_ONE // 10)  # warms up
            rate = await _rate(layer, subscription, payload, senders, seconds)
            latencies = await _seconds_each(layer, subscription, payload, _ONE_BY_ONE)
            address = topic_address(prefix, "bench")
            alone, together = [await _delivery_seconds(connections, address, payload, count) for count in (1, _BATCH)]
    return Measured(rate, statistics.median(latencies), statistics.quantiles(latencies, n=100)[98], alone, together)


@asynccontextmanager
async def _connections(url: str, schema: str, prefix: str) -> AsyncIterator[Connections]:
    connections = Connections(Database(url), schema)
    try:
        yield connections
        await connections.ask(remove_all_messages, prefix)
    finally:
        await connections.close()


async def _rate(layer: MessageLayer, subscription: Subscription, payload: bytes, senders: int, seconds: float) -> float:
    started = time.perf_counter()
    sending = asyncio.create_task(_send_all(layer, payload, senders, started + seconds))
    received = 0
    while (await anext(subscription)).payload is not _END:
        received += 1
    await sending
    return received / (time.perf_counter() - started)


async def _send_all(layer: MessageLayer, payload: bytes, senders: int, until: float) -> None:
    await asyncio.gather(*[_send(layer, payload, until) for _ in range(senders)])
    await layer.publish("bench", _END)


async def _send(layer: MessageLayer, payload: bytes, until: float) -> None:
    while time.perf_counter() < until:
        await layer.publish("bench", payload)


async def _seconds_each(layer: MessageLayer, subscription: Subscription, payload: bytes, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        await layer.publish("bench", payload)
        await anext(subscription)
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


def _told(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} µs"
