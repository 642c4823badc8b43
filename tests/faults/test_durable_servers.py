"""A server with a durable log that crashes, and the change between durable and fast under traffic."""

import asyncio
import subprocess
from collections.abc import Iterator
from typing import Final

import asyncpg
import pytest

from pgchannels import Gap, GapReason, MessageLayer
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from tests.support.connections import fetchval
from tests.support.durable import crash, make, make_all_durable
from tests.support.log import let_pass, rotate
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.traffic import Traffic, traffic
from tests.support.waiting import until, within

HEARTBEAT_SECONDS: Final = 0.3
SETTINGS: Final = {"recovery_init_sync_method": "syncfs"}  # a crash takes less time than with a flush of each file


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A durable server with the schema, whose log is fast."""
    with EmbeddedServer(durable=True, settings=SETTINGS) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


def new_layer(server: EmbeddedServer) -> MessageLayer:
    return MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS)


async def test_nothing_is_lost_when_a_durable_server_is_killed_under_load(server: EmbeddedServer) -> None:
    await make_all_durable(server.url())
    async with new_layer(server) as receiver, new_layer(server) as sender, new_layer(server) as other:
        async with traffic([sender, other], receiver) as running:
            for _ in range(3):
                async with asyncio.TaskGroup() as sending:
                    sending.create_task(within(running.send(100, senders=[0, 1])))
                    await within(running.arriving())
                    await within(crash(server))
            await within(running.finish())
        running.verify()
    assert [stream.gaps for stream in running.streams] == [[], [], []]
    # An answer that the crash took is looked up: no outcome is unknown.
    assert [len(stream.labels) for stream in running.streams] == [2 * 100 * 3] * 3


async def test_publish_that_was_committed_before_a_crash_and_not_answered_is_not_sent_twice(
    server: EmbeddedServer,
) -> None:
    await make_all_durable(server.url())
    async with (
        Proxy(server.url()) as proxy,
        new_layer(server) as layer,
        MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS) as behind,
        layer.subscribe("room") as subscription,
    ):
        proxy.freeze("to_client", new_connections=False)
        publishing = asyncio.create_task(behind.publish("room", "committed"))
        received = await within(anext(subscription))
        await crash(server)
        proxy.restore(held="drop")
        assert await within(publishing) == received.position
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"


async def test_message_that_is_published_before_the_nodes_are_back_is_caught_up(server: EmbeddedServer) -> None:
    await make_all_durable(server.url())
    async with (
        Proxy(server.url()) as proxy,
        MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room") as subscription,
    ):
        before = await layer.publish("room", "before")
        assert (await within(anext(subscription))).payload == "before"
        await hear_of_ids_that_are_never_used(server, layer)
        proxy.refuse()
        await crash(server)
        async with new_layer(server) as other:
            after = await other.publish("room", "meanwhile")
        proxy.restore()
        assert (await within(anext(subscription))).payload == "meanwhile"
        assert before.epoch == after.epoch


async def hear_of_ids_that_are_never_used(server: EmbeddedServer, layer: MessageLayer) -> None:
    """As when a batch is rolled back, or is under way when the server crashes."""
    taken = await fetchval(server.url(), "SELECT max(nextval('pgchannels.message_id')) FROM generate_series(1, 50)")
    assert isinstance(taken, int)
    catch_up = node_of(layer).receiver.catch_up
    await until(lambda: asyncio.sleep(0, catch_up.extent.last_id >= taken))  # with a heartbeat


async def test_messages_of_a_serializable_transaction_outlive_a_crash_in_the_outbox(server: EmbeddedServer) -> None:
    await make_all_durable(server.url())
    connection = await asyncpg.connect(server.url())
    async with connection.transaction(isolation="serializable"):
        await connection.execute("SELECT pgchannels.publish('room', '\"committed\"')")
    await connection.close()
    await crash(server)
    async with new_layer(server) as layer:
        await until(lambda: has_one_message(layer))
        assert (await layer.history("room"))[0].payload == "committed"


async def has_one_message(layer: MessageLayer) -> bool:
    return len(await layer.history("room")) == 1


async def test_durability_changes_to_and_fro_under_traffic_and_nothing_is_lost_doubled_or_out_of_order(
    server: EmbeddedServer,
) -> None:
    async with new_layer(server) as receiver, new_layer(server) as sender, new_layer(server) as other:
        async with traffic([sender, other], receiver) as running:
            for chosen in ("durable", "fast", "durable"):
                async with asyncio.TaskGroup() as sending:
                    sending.create_task(within(running.send(100, senders=[0, 1])))
                    await within(running.arriving())
                    await within(make(server.url(), chosen))
            await until(lambda: has_received(running, 2 * 100 * 3))
            await within(crash_when_all_is_durable(server))
            await within(running.send(20, senders=[0, 1]))
            await within(running.finish())
        running.verify()
    assert [stream.gaps for stream in running.streams] == [[], [], []]
    assert [len(stream.labels) for stream in running.streams] == [2 * 100 * 3 + 2 * 20] * 3


async def has_received(running: Traffic, count: int) -> bool:
    return all(len(stream.labels) == count for stream in running.streams)


async def crash_when_all_is_durable(server: EmbeddedServer) -> None:
    await make_all_durable(server.url())
    await crash(server)


async def test_crash_takes_the_messages_from_before_the_choice_and_that_is_a_gap_and_nothing_more(
    server: EmbeddedServer,
) -> None:
    gaps: list[Gap] = []
    async with new_layer(server) as layer, layer.subscribe("room", on_gap=gaps.append) as subscription:
        old = await layer.publish("room", "fast")
        await layer.send("jobs", "fast")
        await make(server.url(), "durable")
        read = await layer.publish("room", "durable, read")
        await layer.publish("room", "durable")
        await layer.send("jobs", "durable")
        received = [(await within(anext(subscription))).payload for _ in range(3)]
        await crash(server)
        await within(layer.publish("room", "after"))
        received.append((await within(anext(subscription))).payload)
        assert received == ["fast", "durable, read", "durable", "after"]
        assert gaps == [Gap(GapReason.CRASH, None)]
        assert await within(layer.receive("jobs", on_gap=gaps.append)) == "durable"
        for since, expected in ((old, ["durable, read", "durable", "after"]), (read, ["durable", "after"])):
            gaps.clear()
            async with layer.subscribe("room", since=since, on_gap=gaps.append) as again:
                assert [(await within(anext(again))).payload for _ in expected] == expected
            assert len(gaps) == (since is old)


async def test_crash_of_a_log_that_is_fast_again_takes_all_of_it(server: EmbeddedServer) -> None:
    await make_all_durable(server.url())
    gaps: list[Gap] = []
    async with new_layer(server) as layer, layer.subscribe("room", on_gap=gaps.append) as subscription:
        for chosen in ("durable", "fast"):
            await make(server.url(), chosen)
            await layer.publish("room", chosen)
            await layer.send("jobs", chosen)
            await within(anext(subscription))
        assert await within(layer.receive("jobs")) == "durable"
        await crash(server)
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"
        assert gaps == [Gap(GapReason.CRASH, None)]
        assert [message.payload for message in await layer.history("room")] == ["after"]
        await layer.send("jobs", "after")  # what was claimed does not come back
        assert await within(layer.receive("jobs", on_gap=gaps.append)) == "after"


async def test_restart_in_order_keeps_everything_whatever_was_chosen(server: EmbeddedServer) -> None:
    async with new_layer(server) as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", "fast")
        await make(server.url(), "durable")
        await layer.publish("room", "durable")
        await asyncio.to_thread(server.restart, "fast")
        await within(layer.publish("room", "after"))
        assert [(await within(anext(subscription))).payload for _ in range(3)] == ["fast", "durable", "after"]
        assert [message.payload for message in await layer.history("room")] == ["fast", "durable", "after"]


@pytest.mark.parametrize("option", ["--unlogged-table-data", "--no-unlogged-table-data"])
async def test_restored_dump_of_a_durable_log_has_its_messages_and_is_durable(
    server: EmbeddedServer, option: str
) -> None:
    await make_all_durable(server.url())
    async with new_layer(server) as layer:
        await layer.publish_many([("room", number) for number in range(3)])
    file = str(server.socket_directory / "dump")
    without = [option] if option.startswith("--no-") else []
    await run(server, "pg_dump", "--format=custom", f"--file={file}", "--schema=pgchannels", *without, "postgres")
    connection = await asyncpg.connect(server.url())
    await connection.execute("DROP SCHEMA pgchannels CASCADE")
    await connection.close()
    await run(server, "pg_restore", "--single-transaction", "--dbname=postgres", file)
    async with new_layer(server) as layer:
        await layer.publish("room", "restored")
        await crash(server)
        await within(layer.publish("room", "after"))
        assert [message.payload for message in await layer.history("room")] == [0, 1, 2, "restored", "after"]


async def run(server: EmbeddedServer, program: str, *arguments: str) -> None:
    where = (f"--host={server.socket_directory}", f"--port={server.port}", "--username=postgres")
    command = [str(server.binaries / program), *where, *arguments]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


async def test_commit_that_did_not_wait_for_the_disk_is_lost_with_a_gap_or_not_at_all(server: EmbeddedServer) -> None:
    await make_all_durable(server.url())
    events: list[object] = []
    url = f"{server.url()}&options=-csynchronous_commit%3Doff"
    async with MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as layer:
        async with layer.subscribe("room", on_gap=events.append) as subscription:
            for number in range(20):
                await layer.publish("room", number)
                events.append((await within(anext(subscription))).payload)
            await crash(server)
            await within(layer.publish("room", "after"))
            while events[-1] != "after":
                events.append((await within(anext(subscription))).payload)
        kept = [message.payload for message in await layer.history("room")]
    is_whole = kept == [*range(20), "after"]
    assert events == [*range(20), *([] if is_whole else [Gap(GapReason.CRASH, None)]), "after"]


async def test_durable_log_rotates_and_goes_on_after_a_crash(server: EmbeddedServer) -> None:
    await make_all_durable(server.url())
    connection = await asyncpg.connect(server.url())
    async with new_layer(server) as layer:
        positions = []
        for number in range(4):
            positions.append(await layer.publish("room", number))
            await let_pass(connection, 30)
            await rotate(connection)
        gone = "SELECT gone_until FROM pgchannels.log_state"
        gone_until = await connection.fetchval(gone)
        await connection.close()
        await crash(server)
        await within(layer.publish("room", "after"))
        connection = await asyncpg.connect(server.url())
        assert await connection.fetchval(gone) == gone_until
        assert [message.payload for message in await layer.history("room")] == [2, 3, "after"]
        await let_pass(connection, 60)
        await until(lambda: is_rotated(connection))
        assert [message.payload for message in await layer.history("room")] == ["after"]
    await connection.close()


async def is_rotated(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    await rotate(connection)
    return bool(await connection.fetchval("SELECT count(*) = 1 FROM pgchannels.filled_slot"))
