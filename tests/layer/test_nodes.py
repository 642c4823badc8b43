"""Nodes that are gone, and many at once."""

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import asyncpg

from pgchannels import MessageLayer, Subscription
from tests.support.log import count_slots
from tests.support.waiting import until, within

NODES = 20
OF_DEAD_NODE = """
    SELECT (SELECT count(*) FROM pgchannels.node WHERE id = $1)
         + (SELECT count(*) FROM pgchannels.subscription WHERE node = $1)
         + (SELECT count(*) FROM pgchannels.full_channel WHERE node = $1)
"""


async def test_node_whose_lease_has_ended_is_removed_with_all_that_it_hosted(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    dead = uuid4()
    await connection.execute("INSERT INTO pgchannels.node VALUES ($1, 'dead', now() + interval '1 s')", dead)
    await connection.execute(
        "SELECT pgchannels.host($1, 0, NULL, $2, '{}', false)", dead, ["topic:asgi:room", "node:asgi:dead"]
    )
    await connection.execute("INSERT INTO pgchannels.full_channel VALUES ('specific.dead!x', $1)", dead)
    async with MessageLayer(database_url, heartbeat=0.1) as layer:
        await layer.publish("room", "while its lease lasts")
        await until(lambda: is_gone(connection, dead))
        host = "SELECT position FROM pgchannels.host($1, 0, NULL, $2, '{}', false)"
        assert await connection.fetchval(host, dead, ["topic:asgi:room"]) is None
        assert await is_gone(connection, dead)


async def is_gone(connection: "asyncpg.Connection[asyncpg.Record]", node: object) -> bool:
    """Whether the database knows nothing more of a node."""
    rows: int = await connection.fetchval(OF_DEAD_NODE, node)
    return not rows


async def test_log_rotates_under_constant_load_with_twenty_nodes_beside_an_open_transaction(
    owner_url: str, database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stranger = await asyncpg.connect(owner_url)
    async with AsyncExitStack() as stack, stranger.transaction(isolation="repeatable_read"):
        await stranger.fetchval("SELECT txid_current()")
        layers = [await stack.enter_async_context(MessageLayer(database_url, expiry=1)) for _ in range(NODES)]
        await connection.execute("UPDATE pgchannels.log SET retention = '2 s'")
        # So short a retention makes nodes tell that they may have missed something.
        subscription = await stack.enter_async_context(layers[0].subscribe("room", on_gap=lambda _: None))
        receiving, stop = asyncio.create_task(receive_all(subscription)), asyncio.Event()
        sending = asyncio.gather(*[publish_until(layer, stop) for layer in layers])
        await until(lambda: has_emptied_a_slot(connection))
        stop.set()
        sent = await within(sending)
        await layers[0].publish("room", None)
        assert await within(receiving) == sum(sent)
    await stranger.close()
    assert await count_slots(connection) == 3


async def publish_until(layer: MessageLayer, stop: asyncio.Event) -> int:
    """Publish without a pause; returns how many messages."""
    number = 0
    while not stop.is_set():
        await layer.publish("room", number)
        number += 1
    return number


async def receive_all(subscription: Subscription) -> int:
    """How many messages there are before the last, which is None."""
    count = 0
    while (await anext(subscription)).payload is not None:
        count += 1
    return count


async def has_emptied_a_slot(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Whether messages have left the log."""
    answer: bool = await connection.fetchval("SELECT gone_until > began_at FROM pgchannels.log_state")
    return answer
