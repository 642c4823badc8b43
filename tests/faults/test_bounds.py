"""What a layer takes of the database, and for how long it waits, whatever hangs there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, MessageLayer
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HERE: Final = "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"


@asynccontextmanager
async def locked(owner_url: str, *tables: str) -> AsyncIterator[int]:
    """Somebody's transaction holds these tables; the process ID of its session."""
    connection = await asyncpg.connect(owner_url)
    try:
        async with connection.transaction():
            for table in tables:
                await connection.execute(f"LOCK TABLE pgchannels.{table}")
            yield connection.get_server_pid()
    finally:
        await connection.close()


async def waiting_for_locks(connection: Connection) -> set[int]:
    return {pid for (pid,) in await connection.fetch(f"SELECT pid {HERE} AND wait_event_type = 'Lock'")}


async def test_sessions_whose_connections_are_cut_while_they_wait_for_a_lock_do_not_pile_up(
    database_url: str, owner_url: str, connection: Connection
) -> None:
    seen: set[int] = set()

    async def a_new_one_waits() -> bool:
        return bool(await waiting_for_locks(connection) - seen)

    async with Proxy(database_url) as proxy, MessageLayer(proxy.url), locked(owner_url, "node") as blocker:
        for _ in range(5):
            proxy.cut()
            await until(a_new_one_waits)
            waiting = await waiting_for_locks(connection)
            seen |= waiting
            assert len(waiting) == 1
            others = f"SELECT count(*) {HERE} AND pid <> ALL ($1)"
            assert await connection.fetchval(others, [blocker, connection.get_server_pid()]) <= 3


async def test_node_goes_on_receiving_while_its_heartbeat_waits_for_a_lock(
    database_url: str, owner_url: str, layer: MessageLayer, caplog: pytest.LogCaptureFixture
) -> None:
    async def is_logged() -> bool:
        return "could not keep the node alive, will try again: somebody holds a lock that it waits for" in caplog.text

    async with MessageLayer(database_url, heartbeat=0.3) as beating, beating.subscribe("room") as subscription:
        async with locked(owner_url, "node"):
            await until(is_logged)
            await layer.publish("room", "meanwhile")
            assert (await within(anext(subscription))).payload == "meanwhile"
        await layer.publish("room", "later")
        assert (await within(anext(subscription))).payload == "later"
        assert node_of(beating)._listener.reconnected == 0


async def test_send_that_waits_for_a_lock_says_so_and_leaves_nothing_behind(
    database_url: str, owner_url: str, connection: Connection
) -> None:
    async with MessageLayer(database_url, heartbeat=0.1, send_timeout=1) as layer:
        async with locked(owner_url, "message_0"):
            with pytest.raises(DatabaseUnavailable, match=r"send_timeout=1 seconds.*\(somebody holds a lock") as raised:
                await within(layer.publish("room", "refused"))
        await within(layer.publish("room", "taken"))
    count = await connection.fetchval("SELECT count(*) FROM pgchannels.message WHERE address LIKE 'topic:%'")
    assert count == 1 or (count == 2 and raised.value.may_have_been_sent)  # the last attempt was under way


async def test_send_waits_for_nobody_who_holds_advisory_locks(layer: MessageLayer, stranger: Connection) -> None:
    async with layer.subscribe("room") as subscription:
        await stranger.execute("SELECT pg_advisory_lock(hashtext('pgchannels'), n) FROM generate_series(0, 127) AS n")
        await within(layer.publish("room", "sent"))
        assert (await within(anext(subscription))).payload == "sent"
