"""A database whose clock is set back by hours, as its rows see it: what they have is hours ahead; or forward."""

import asyncio
from typing import Final

import asyncpg
from sqlalchemy import Float, extract, func, select

from pgchannels import MessageLayer
from pgchannels.process.node import Node
from tests.support.log import let_pass, rotate
from tests.support.roads import node_of
from tests.support.waiting import until, within

HOURS: Final = 5


async def test_log_goes_on_rotating(layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await layer.publish("room", 1)
    await let_pass(connection, 30)
    assert await rotate(connection)
    await let_pass(connection, -HOURS * 3600)
    kept = []
    for _ in range(4):
        assert not await rotate(connection)
        await let_pass(connection, 30)
        assert await rotate(connection)
        kept.append(len(await layer.history("room")))
    assert kept == [1, 0, 0, 0]


async def test_leases_end_as_soon_as_ever(database_url: str, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    lease = "SELECT max(leased_until) < now() + interval '{}' FROM pgchannels.node WHERE (name = 'dead') = {}"
    async with MessageLayer(database_url, heartbeat=0.1) as layer:
        await layer.new_channel()
        await connection.execute(
            f"""
            INSERT INTO pgchannels.node (id, name, leased_until) VALUES (gen_random_uuid(), 'dead', now());
            UPDATE pgchannels.node SET leased_until = leased_until + interval '{HOURS} h'
            """
        )
        await until(lambda: connection.fetchval(lease.format("31 s", False)))
        await until(lambda: connection.fetchval(lease.format("3 min", True)))


async def test_messages_keep_their_time_to_live(database_url: str) -> None:
    async with MessageLayer(database_url, heartbeat=0.1, expiry=60) as layer:
        await layer.new_channel()
        connections = node_of(layer)._connections
        connections._clock_offset += HOURS * 3600  # as it was told before
        [(now,)] = await connections.ask(lambda _: select(extract("epoch", func.clock_timestamp()).cast(Float(53))))
        await until(lambda: is_right(node_of(layer), now))


async def test_clock_that_was_set_back_makes_no_fresh_message_expire(database_url: str) -> None:
    async with (
        MessageLayer(database_url, expiry=60) as layer,
        layer.subscribe("room") as subscription,
    ):
        for number in range(3):
            node_of(layer)._connections._clock_offset += HOURS * 3600  # as it was told before
            await layer.publish("room", number)
            assert (await within(anext(subscription))).payload == number


async def test_clock_that_was_set_forward_holds_up_no_message(database_url: str) -> None:
    async with MessageLayer(database_url, heartbeat=3600, send_timeout=3600) as layer:
        await layer.publish("room", 1)
        node_of(layer)._connections._clock_offset -= HOURS * 3600  # as it was told before
        await within(layer.publish("room", 2))
        assert [message.payload for message in await layer.history("room")] == [1, 2]


async def is_right(node: Node, seconds: float) -> bool:
    """Whether a node knows the database's clock, some seconds later."""
    await asyncio.sleep(0)
    return 0 <= node._connections.database_time() - seconds < 600
