"""A node that the database has forgotten learns of it, whatever it has asked for meanwhile."""

import asyncpg

from pgchannels import Gap, GapReason, MessageLayer
from tests.faults.conftest import behind
from tests.faults.moments import beat, come_back, cut_off, forget_all_nodes, is_live, received
from tests.support.gates import Gate
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import within

__all__ = ["behind"]  # a fixture


async def test_node_whose_registration_was_not_answered_and_that_gave_an_address_up_then_hosts_the_others_again(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    node = node_of(behind)
    async with behind.subscribe("room") as subscription:
        async with behind.subscribe("news"):
            pass
        with Gate(node.receiver.hosting, "_host") as giving_up:
            await beat(behind)
            await within(giving_up.reached())
            await forget_all_nodes(connection)
            # Its heartbeat registers it; the answer is lost with the connection.
            await connection.execute(
                "SELECT version FROM pgchannels.beat($1, $2, '1 h', '1 s', '')", node.identity.id, node.identity.name
            )
            giving_up.open()
            await within(giving_up.done())
            cut_off(proxy)
        await come_back(behind, proxy)
        await is_live(node)
        await layer.publish("room", "heard")
        assert await received(subscription, [], 1) == ["heard"]


async def test_node_that_finds_itself_in_a_restored_database_hosts_everything_again(
    layer: MessageLayer, behind: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    node = node_of(behind)
    told: list[object] = []
    async with behind.subscribe("room", on_gap=told.append) as subscription:
        # As from a dump that was made before the node subscribed: its row has the same version.
        await connection.execute(
            "DELETE FROM pgchannels.subscription WHERE node = $1 AND address LIKE 'topic:%'", node.identity.id
        )
        await connection.execute("UPDATE pgchannels.log_state SET identity = identity + 1")
        await beat(behind)
        await layer.publish("room", "heard")
        assert await received(subscription, told, 1) == [Gap(GapReason.CRASH, None), "heard"]


async def test_node_is_told_nothing_of_a_log_that_it_does_not_know_yet(
    layer: MessageLayer, behind: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    hosted = "SELECT count(*) FROM pgchannels.subscription WHERE node = $1"
    async with behind.subscribe("room") as subscription:
        # As where a dump has replaced the tables, and the node has stayed connected.
        await connection.execute("UPDATE pgchannels.log_state SET file = 'of the former table', filenode = 0")
        await layer.publish("room", "read")
        assert await connection.fetchval(hosted, node_of(behind).identity.id) == 0
        await beat(behind)
        assert await received(subscription, [], 1) == ["read"]
