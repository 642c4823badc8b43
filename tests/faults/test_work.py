"""Work whose connection, server or transaction neighbours fail: acknowledged once, given back once, never slower."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Final

import asyncpg
import pytest

from pgchannels import MessageLayer, MessagesLost
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from tests.support.proxy import Proxy
from tests.support.roads import Connection, node_of
from tests.support.waiting import LIMIT_SECONDS, until, within

QUEUE: Final = "queue:asgi:jobs"
ROUNDS: Final = 200
CHANGED_ROWS: Final = """
SELECT sum(n_tup_ins) AS inserted, sum(n_tup_upd + n_tup_del) AS changed
FROM pg_stat_all_tables
WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'pgchannels.message'::regclass)
"""


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A durable server with the schema."""
    with EmbeddedServer(durable=True) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[MessageLayer]:
    """A layer behind the proxy."""
    async with MessageLayer(proxy.url, send_timeout=5) as layer:
        yield layer
        proxy.restore()


async def open_work(connection: Connection) -> int:
    """How many messages are under work."""
    count: int = await connection.fetchval("SELECT count(*) FROM pgchannels.open_work($1)", QUEUE)
    return count


async def waiting(connection: Connection) -> int:
    """How many messages wait in the queue."""
    return await connection.fetchval("SELECT waiting FROM pgchannels.queue_status WHERE name = 'jobs'") or 0


def works_at_nothing(layer: MessageLayer) -> bool:
    """Whether a layer knows how all of its work has ended."""
    return not node_of(layer).receiver.queues.works.queues


@pytest.mark.parametrize("fails", [False, True], ids=["acknowledged", "given back"])
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_end_of_work_survives_a_lost_connection_and_counts_once(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection, direction: str, fails: bool
) -> None:
    await layer.send("jobs", "x")
    with suppress(ZeroDivisionError):
        async with asyncio.timeout(LIMIT_SECONDS), behind.claim("jobs"):
            proxy.freeze("to_server" if direction == "to_server" else "to_client", new_connections=False)
            if fails:
                raise ZeroDivisionError
    await asyncio.sleep(0.05)  # the call is on its way: whether it arrived is what the two directions are for
    proxy.cut()
    await until(lambda: asyncio.sleep(0, works_at_nothing(behind)))
    assert await open_work(connection) == 0
    assert await waiting(connection) == int(fails)
    if fails:
        async with asyncio.timeout(LIMIT_SECONDS), layer.claim("jobs") as work:
            assert (work.payload, work.attempts) == ("x", 2)


async def test_claim_whose_answer_was_lost_brings_the_same_message(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    proxy.freeze_at(b"only one")
    await layer.send("jobs", "only one")
    claim = behind.claim("jobs")
    claiming = asyncio.create_task(claim.__aenter__())
    await within(proxy.holding(b"only one"))
    assert await open_work(connection) == 1
    proxy.cut()
    work = await within(claiming)
    assert (work.payload, work.attempts) == ("only one", 1)
    assert await open_work(connection) == 1
    await claim.__aexit__(None, None, None)
    await until(lambda: asyncio.sleep(0, works_at_nothing(behind)))
    assert await open_work(connection) == 0


async def test_claim_whose_answer_was_lost_takes_anew_what_was_given_back_meanwhile(
    layer: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    async with MessageLayer(proxy.url, heartbeat=3600) as behind:
        proxy.freeze_at(b"only one")
        await layer.send("jobs", "only one")
        claim = behind.claim("jobs")
        claiming = asyncio.create_task(claim.__aenter__())
        await within(proxy.holding(b"only one"))
        await connection.execute("DELETE FROM pgchannels.lease")
        await connection.execute("SELECT pgchannels.give_back_abandoned($1)", QUEUE)
        proxy.cut()
        work = await within(claiming)
        assert (work.payload, work.attempts) == ("only one", 2)
        assert await open_work(connection) == 1
        await claim.__aexit__(None, None, None)
        proxy.restore()


async def test_restart_of_the_server_takes_no_work_from_living_workers(server: EmbeddedServer) -> None:
    async with MessageLayer(server.url(), heartbeat=0.3) as layer, MessageLayer(server.url(), heartbeat=0.3) as other:
        for payload in ("under work", "waits"):
            await layer.send("jobs", payload)
        async with layer.claim("jobs") as work:
            assert work.payload == "under work"
            await asyncio.to_thread(server.restart, "fast")
            async with asyncio.timeout(LIMIT_SECONDS), other.claim("jobs") as another:
                assert another.payload == "waits"
        await until(lambda: asyncio.sleep(0, works_at_nothing(layer) and works_at_nothing(other)))
        connection = await asyncpg.connect(server.url())
        assert (await open_work(connection), await waiting(connection)) == (0, 0)
        await connection.close()


async def test_crash_of_the_server_loses_jobs_and_says_so_and_work_goes_on(server: EmbeddedServer) -> None:
    async with MessageLayer(server.url(), heartbeat=0.3) as layer, MessageLayer(server.url(), heartbeat=0.3) as other:
        for payload in ("under work", "waits"):
            await layer.send("jobs", payload)
        async with layer.claim("jobs") as work:
            assert work.payload == "under work"
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            while True:
                with suppress(MessagesLost):
                    await other.send("jobs", "after the crash")
                    break
            async with asyncio.timeout(LIMIT_SECONDS), other.claim("jobs", on_gap=lambda _: None) as another:
                assert another.payload == "after the crash"
        await until(lambda: asyncio.sleep(0, works_at_nothing(layer) and works_at_nothing(other)))


async def test_claims_change_no_row_of_the_log_beside_a_long_transaction(
    layer: MessageLayer, owner_url: str, connection: Connection
) -> None:
    # What no vacuum has to remove cannot pile up while somebody's transaction is open.
    holder = await asyncpg.connect(owner_url)
    await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pgchannels.message")
    for number in range(ROUNDS):
        await layer.send("jobs", number)
        with suppress(ZeroDivisionError):
            async with asyncio.timeout(LIMIT_SECONDS), layer.claim("jobs") as work:
                if work.attempts == 1 and number % 10 == 0:
                    raise ZeroDivisionError
    await until(lambda: asyncio.sleep(0, works_at_nothing(layer)))

    async def are_counted() -> bool:
        inserted: int = await connection.fetchval(f"SELECT inserted FROM ({CHANGED_ROWS}) AS counted")
        return inserted >= 4 * ROUNDS

    await within(layer.close())  # a session that ends reports what it did
    await until(are_counted)
    assert await connection.fetchval(f"SELECT changed FROM ({CHANGED_ROWS}) AS counted") == 0
    await holder.close()


async def test_closing_without_an_answer_to_what_is_done_is_a_warning_and_no_loss(
    layer: MessageLayer,
    behind: MessageLayer,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("pgchannels.process.node._CLOSE_TIMEOUT_SECONDS", 0.5)
    losses, unresolved = node_of(behind).losses, node_of(behind).receiver.queues._taker.unresolved
    await layer.send("jobs", "done")
    async with asyncio.timeout(LIMIT_SECONDS), behind.claim("jobs"):
        proxy.freeze()
    await until(lambda: asyncio.sleep(0, any(call.done for call in unresolved.values())))
    await within(behind.close())
    assert (losses.messages, losses.gaps) == (0, 0)
    assert "ERROR" not in {record.levelname for record in caplog.records}
    assert "the layer closed, and could not tell the database which work is done" in caplog.text
