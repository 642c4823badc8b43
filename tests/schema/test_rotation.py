"""The log's slots rotate, and what that keeps and removes."""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from typing import Final

import asyncpg
import pytest

from pgchannels import Gap, GapReason, MessageLayer
from pgchannels.upkeep.retention import Retention
from tests.support.log import count_slots, let_pass, lose_the_log, rotate
from tests.support.roads import node_of, process_of
from tests.support.waiting import until, within


async def test_messages_are_kept_for_the_retention_and_gone_after_one_and_a_half(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    kept = []
    for number in range(4):
        await layer.publish("room", number)
        await let_pass(connection, 30)
        assert await rotate(connection)
        kept.append([message.payload for message in await layer.history("room")])
    assert kept == [[0], [0, 1], [1, 2], [2, 3]]
    assert await count_slots(connection) == 3


async def test_log_says_up_to_which_position_messages_are_gone(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    positions = []
    for _ in range(3):
        positions.append(await layer.publish("room", "x"))
        await let_pass(connection, 30)
        await rotate(connection)
    gone_until = await connection.fetchval("SELECT gone_until FROM pgchannels.log_state")
    assert positions[0].to_id() <= gone_until < positions[1].to_id()


async def test_log_does_not_rotate_before_half_of_the_retention(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await layer.publish("room", 1)
    assert not await rotate(connection)
    await let_pass(connection, 29)
    assert not await rotate(connection)
    await let_pass(connection, 1)
    assert await rotate(connection)
    assert not await rotate(connection)


async def test_longest_expiry_decides_on_the_retention(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for expiry in (300, 100):
        async with MessageLayer(database_url, expiry=expiry):
            assert await connection.fetchval("SELECT retention = '300 s' FROM pgchannels.log")


async def let_term_end(connection: "asyncpg.Connection[asyncpg.Record]", duration: str) -> None:
    """Make the log look who needs its messages."""
    await connection.execute(f"UPDATE pgchannels.log SET term_began_at = now() - interval '{duration}'")
    await rotate(connection)


async def test_layer_that_is_gone_is_forgotten_after_two_terms_and_one_that_lives_is_not(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    retention = "SELECT extract(epoch FROM retention)::int FROM pgchannels.log"
    async with MessageLayer(database_url, expiry=300):
        pass
    async with MessageLayer(database_url, expiry=100) as living:
        kept = []
        for _ in range(4):
            await let_term_end(connection, "1 day")
            node_of(living).beat_now()
            await until(lambda: connection.fetchval("SELECT needed = '100 s' FROM pgchannels.log"))
            kept.append(await connection.fetchval(retention))
    assert kept == [300, 100, 100, 100]
    for _ in range(3):
        await let_term_end(connection, "1 day")
    assert await connection.fetchval(retention) == 100  # nobody is there who rotates


async def test_term_is_longer_than_messages_live_and_a_clock_that_was_set_back_does_not_stretch_it(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    needed = "SELECT extract(epoch FROM needed)::int FROM pgchannels.log"
    async with MessageLayer(database_url, expiry=86_400):
        pass
    await let_term_end(connection, "47 h")
    assert await connection.fetchval(needed) == 86_400
    await let_term_end(connection, "48 h")
    assert await connection.fetchval(needed) == 0
    async with MessageLayer(database_url, expiry=86_400):
        await let_term_end(connection, "-1 h")
        assert await connection.fetchval(needed) == 0


async def test_retention_that_is_set_outlasts_all_layers_and_a_crash(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("UPDATE pgchannels.log SET chosen = '1 h', retention = '1 h'")
    async with MessageLayer(database_url, expiry=7200):
        pass
    await lose_the_log(connection)
    async with MessageLayer(database_url) as layer:
        for _ in range(3):
            await let_term_end(connection, "1 day")
            node_of(layer).beat_now()
            await until(lambda: connection.fetchval("SELECT needed > '0' FROM pgchannels.log"))
    assert await connection.fetchval("SELECT retention = '1 h' FROM pgchannels.log_status")


async def test_process_that_only_sends_says_again_what_it_needs(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgchannels.process.service._REMIND_SECONDS", 0.01)
    layer = MessageLayer(database_url, expiry=300)
    is_needed = "SELECT needed = '300 s' FROM pgchannels.log"
    for number in range(3):
        await asyncio.to_thread(layer.sync.publish, "room", number)  # over the same connection
        await until(lambda: connection.fetchval(is_needed))
        await until(lambda: asyncio.sleep(0, process_of(layer)._background._service is not None))
        service = process_of(layer)._background._service
        assert service is not None
        await until(lambda: asyncio.sleep(0, not service._has_sent))  # noqa: B023 -- awaited at once
        await let_term_end(connection, "1 day")
    await asyncio.to_thread(layer.sync.publish, "room", "last")
    await until(lambda: connection.fetchval(is_needed))
    await asyncio.to_thread(layer.sync.close)


async def test_other_slots_take_the_place_of_those_that_a_dump_has_locked(
    database_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    dump = await asyncpg.connect(database_url)
    async with dump.transaction(isolation="repeatable_read"):
        await dump.execute("LOCK TABLE pgchannels.message IN ACCESS SHARE MODE")
        for number in range(6):
            await layer.publish("room", number)
            await let_pass(connection, 30)
            assert await rotate(connection)
        slots = await count_slots(connection)
        assert [message.payload for message in await layer.history("room")] == [0, 1, 2, 4, 5]
    await dump.close()
    assert slots == 6
    await let_pass(connection, 30)
    assert await rotate(connection)
    assert [message.payload for message in await layer.history("room")] == [5]
    assert await count_slots(connection) == slots


async def test_slot_that_is_emptied_late_takes_nothing_back_of_what_is_gone(
    owner_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gone_until = "SELECT gone_until FROM pgchannels.log_state"
    dump = await asyncpg.connect(owner_url)
    async with dump.transaction():
        await dump.execute("LOCK TABLE pgchannels.message_0 IN ACCESS SHARE MODE")
        for number in range(4):
            await layer.publish("room", number)
            await let_pass(connection, 60)
            assert await rotate(connection)
        gone = await connection.fetchval(gone_until)
    await dump.close()
    await let_pass(connection, 30)
    await connection.execute("UPDATE pgchannels.filled_slot SET filled_at = now() WHERE slot <> 0")
    assert await rotate(connection)
    assert not await connection.fetchval("SELECT EXISTS (SELECT FROM pgchannels.filled_slot WHERE slot = 0)")
    assert await connection.fetchval(gone_until) == gone


async def test_slot_is_emptied_without_the_locks_of_senders_who_may_wait_for_it(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]", owner_url: str
) -> None:
    await layer.publish("room", "x")
    await let_pass(connection, 30)
    assert await rotate(connection)
    await let_pass(connection, 60)
    sending = await asyncpg.connect(owner_url)
    async with connection.transaction():
        assert await connection.fetchval("SELECT pgchannels.rotate()")
        assert await connection.fetchval("SELECT count(*) FROM pgchannels.filled_slot") == 0
        free = await sending.fetch("SELECT number FROM pgchannels.stripe FOR UPDATE SKIP LOCKED")
        assert len(free) == 129
    await sending.close()


async def test_batch_under_way_puts_rotation_off(
    database_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await layer.publish("room", 1)
    await let_pass(connection, 30)
    sender = await asyncpg.connect(database_url)
    async with sender.transaction():
        await sender.fetchval("SELECT pgchannels.lock_addresses(ARRAY['topic:asgi:room'])")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await rotate(connection)
    await sender.close()
    assert await rotate(connection)


async def test_expired_messages_are_not_read_and_those_of_a_queue_are_told_as_lost(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gaps: list[Gap] = []
    for _ in range(3):
        await layer.publish("room", "expired")
        await layer.send("jobs", "expired")
    await connection.execute("UPDATE pgchannels.message SET expires_at = now()")
    await layer.publish("room", "fresh")
    await layer.send("jobs", "fresh")
    assert [message.payload for message in await layer.history("room")] == ["fresh"]
    assert await within(layer.receive("jobs", on_gap=gaps.append)) == "fresh"
    assert gaps == [Gap(GapReason.EXPIRED, 3)]


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> Counter[Retention]:
    """How often each node has tried to rotate."""
    counted, rotate_later = Counter[Retention](), Retention._rotate_later

    async def counting(retention: Retention) -> None:
        await rotate_later(retention)
        counted[retention] += 1

    monkeypatch.setattr(Retention, "_rotate_later", counting)
    return counted


async def have_all_tried(tries: Counter[Retention], times: Counter[Retention], nodes: int) -> bool:
    """Whether so many nodes have tried once more than they had."""
    return len(tries - times) == nodes


IS_OVERDUE: Final = "SELECT is_overdue FROM pgchannels.log_status"
HAS_ROTATED: Final = "SELECT rotated_at > now() - interval '10 min' AND NOT is_overdue FROM pgchannels.log_status"


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def open_eight(layers: AsyncExitStack, url: str) -> None:
    """Open eight layers together."""
    opening = [MessageLayer(url, expiry=1, prefix=f"p{number}") for number in range(8)]
    await asyncio.gather(*map(layers.enter_async_context, opening))


async def test_layers_that_open_after_a_quiet_time_warn_of_nobody_while_one_node_rotates(
    database_url: str,
    connection: "asyncpg.Connection[asyncpg.Record]",
    tries: Counter[Retention],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MessageLayer(database_url, expiry=1) as before:
        await before.publish("room", 1)
    tries.clear()
    await let_pass(connection, 3600)
    assert await connection.fetchval(IS_OVERDUE)
    async with AsyncExitStack() as layers:
        async with connection.transaction():
            await connection.execute("SELECT FROM pgchannels.log_state FOR UPDATE")  # as a node that rotates
            await open_eight(layers, database_url)
            await until(lambda: have_all_tried(tries, Counter(), 8))
        tried = tries.copy()
        await until(lambda: have_all_tried(tries, tried, 8))
        await until(lambda: connection.fetchval(HAS_ROTATED))
    assert warnings_in(caplog) == []


async def test_shorter_retention_makes_no_layer_warn_while_one_node_rotates(
    database_url: str,
    owner_url: str,
    connection: "asyncpg.Connection[asyncpg.Record]",
    tries: Counter[Retention],
    caplog: pytest.LogCaptureFixture,
) -> None:
    owner = await asyncpg.connect(owner_url)
    async with AsyncExitStack() as layers:
        await open_eight(layers, database_url)
        await owner.execute("UPDATE pgchannels.log SET chosen = '7 d', retention = '7 d'")
        async with MessageLayer(database_url) as sending:
            await sending.publish("room", 1)
        await let_pass(connection, 3600)
        await until(lambda: asyncio.sleep(0, max(tries.values(), default=0) > 6))
        async with connection.transaction():
            await connection.fetchval("SELECT pgchannels.rotate()")  # as another node does
            await owner.execute("UPDATE pgchannels.log SET chosen = '1 s', retention = '1 min'")
            assert await owner.fetchval(IS_OVERDUE)
            tried = tries.copy()
            await until(lambda: have_all_tried(tries, tried, 8))
        await until(lambda: connection.fetchval(HAS_ROTATED))
    await owner.close()
    assert warnings_in(caplog) == []


async def test_layer_that_rarely_asks_the_database_tries_again_before_it_warns(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", caplog: pytest.LogCaptureFixture
) -> None:
    async with MessageLayer(database_url, expiry=0.2, poll=0.1, heartbeat=60) as layer:
        await layer.publish("room", 1)
        await let_pass(connection, 3600)
        async with connection.transaction():
            await connection.execute("SELECT FROM pgchannels.log_state FOR UPDATE")
            node_of(layer)._retention.rotate_soon()
            await until(lambda: asyncio.sleep(0, bool(warnings_in(caplog))))
    assert [text.partition(":")[0] for text in warnings_in(caplog)] == ["the log cannot rotate, and grows"]
