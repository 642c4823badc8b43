"""The layer beside its own SQL, in one process: `python -m benchmarks.basic`, on an embedded, durable PostgreSQL.

Compare figures within one run only: machines are noisy.
"""

import asyncio
import os
import statistics
import time
from uuid import uuid4

import asyncpg

from pgchannels import MessageLayer
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer

PAYLOAD = os.urandom(200)
SENDERS, MESSAGES, ONE_BY_ONE, BATCHES, BATCH = 100, 20_000, 1_000, 40, 500


async def main(url: str) -> None:
    """Run all, and print a line for each."""
    await migrations.upgrade(url)
    print(f"deliver(), batches of {BATCH}, one listener: {await bare_batches(url):,.0f} messages/s")
    async with MessageLayer(url, capacity=MESSAGES) as layer:
        print(f"layer, {SENDERS} senders, one subscriber: {await many_senders(layer):,.0f} messages/s")
        p50, p99 = await one_by_one(layer)
        print(f"layer, one after another, call to delivery: p50 {p50 * 1e6:.0f} µs, p99 {p99 * 1e6:.0f} µs")


async def bare_batches(url: str) -> float:
    """Messages per second of the SQL alone."""
    node, connection, listener = uuid4(), await asyncpg.connect(url), await asyncpg.connect(url)
    await listener.add_listener(str(node), lambda *_: None)
    await connection.execute("INSERT INTO pgchannels.node VALUES ($1, 'bare', now() + interval '1 hour')", node)
    await connection.execute("SELECT pgchannels.host($1, $2)", node, ["topic:asgi:bare"])
    statement = await connection.prepare("SELECT * FROM pgchannels.deliver($1, $2, $3, $4, $5, NULL, 60)")
    valid_until = time.time() + 3600
    started = time.perf_counter()
    for number in range(BATCHES):
        await statement.fetchval(number, valid_until, ["topic:asgi:bare"] * BATCH, [None] * BATCH, [PAYLOAD] * BATCH)
    rate = BATCHES * BATCH / (time.perf_counter() - started)
    await connection.close()
    await listener.close()
    return rate


async def many_senders(layer: MessageLayer) -> float:
    """Messages per second from the first call to the last delivery."""

    async def send() -> None:
        for _ in range(MESSAGES // SENDERS):
            await layer.publish("many", PAYLOAD)

    async with layer.subscribe("many") as subscription:
        started = time.perf_counter()
        sending = asyncio.gather(*[send() for _ in range(SENDERS)])
        for _ in range(MESSAGES):
            await anext(subscription)
        await sending
        return MESSAGES / (time.perf_counter() - started)


async def one_by_one(layer: MessageLayer) -> tuple[float, float]:
    """Median and 99th percentile of the seconds from a call to its delivery."""
    seconds = []
    async with layer.subscribe("one") as subscription:
        for _ in range(ONE_BY_ONE):
            started = time.perf_counter()
            await layer.publish("one", PAYLOAD)
            await anext(subscription)
            seconds.append(time.perf_counter() - started)
    percentiles = statistics.quantiles(seconds, n=100)
    return statistics.median(seconds), percentiles[98]


if __name__ == "__main__":
    with EmbeddedServer(durable=True) as server:
        asyncio.run(main(server.url()))
