"""Connections whose other end says nothing any more, statements that arrive late, and answers that never do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, TypeAlias

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, LayerClosed, MessageLayer
from tests.support.log import let_pass, rotate
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HEARTBEAT_SECONDS: Final = 0.3
NOTICED_SECONDS: Final = 5.0  # two heartbeats, a pause, and a busy machine


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[MessageLayer]:
    """A layer behind the proxy."""
    async with MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS) as layer:
        yield layer
        proxy.restore()


async def stored(connection: Connection) -> int:
    count: int = await connection.fetchval("SELECT count(*) FROM pgchannels.message WHERE address LIKE 'topic:%'")
    return count


async def payloads(connection: Connection) -> bytes:
    every: bytes | None = await connection.fetchval("SELECT string_agg(payload, '') FROM pgchannels.message")
    return every or b""


async def test_half_open_listener_is_noticed_and_replaced(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    async with behind.subscribe("room") as subscription:
        proxy.freeze(new_connections=False)
        await layer.publish("room", "small")
        await layer.publish("room", "x" * 9_000)
        async with asyncio.timeout(NOTICED_SECONDS):
            received = [(await anext(subscription)).payload for _ in range(2)]
        assert received == ["small", "x" * 9_000]


async def test_messages_sent_while_everything_is_frozen_arrive_after_restore(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    channel = await behind.new_channel()
    async with behind.subscribe("room") as subscription:
        proxy.freeze()
        receiving = asyncio.create_task(behind.receive(channel))
        claiming = asyncio.create_task(behind.receive("jobs"))
        publishing = asyncio.create_task(behind.publish("room", "own"))
        await within(proxy.holding(b"own"))
        await layer.publish("room", "foreign")
        await layer.send(channel, "direct")
        await layer.send("jobs", "job")
        proxy.restore()
        position = await within(publishing)
        messages = [await within(anext(subscription)) for _ in range(2)]
        assert {message.payload for message in messages} == {"own", "foreign"}
        assert position in {message.position for message in messages}
        assert await within(receiving) == "direct"
        assert await within(claiming) == "job"


@pytest.mark.parametrize("rotations", [0, 1, 2])
async def test_publish_that_arrives_late_is_not_delivered_twice(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection, rotations: int
) -> None:
    async with layer.subscribe("room") as subscription:
        await behind.publish("room", "before")  # so that its place in the log is known
        proxy.freeze_at(b"original")
        publishing = asyncio.create_task(behind.publish("room", "original"))
        await within(proxy.holding(b"original"))
        proxy.cut()
        for turn in range(2):
            if turn < rotations:  # before the second call, or behind it as well
                await let_pass(connection, 30)
                assert await rotate(connection)
            position = await within(publishing)
        proxy.restore()
        await within(proxy.settled())
        await behind.publish("room", "after")
        messages = [await within(anext(subscription)) for _ in range(3)]
        assert [message.payload for message in messages] == ["before", "original", "after"]
        assert messages[1].position == position
        assert await stored(connection) == 3


async def test_call_that_waits_for_its_repetition_does_nothing(connection: Connection, database_url: str) -> None:
    call = (
        "SELECT first_id FROM pgchannels.deliver(1, 'infinity', '{topic:asgi:room}', NULL, '{x}', NULL, NULL, 60, $1)"
    )
    known = await connection.fetchval("SELECT last_id FROM pgchannels.extent()")
    first, repeating = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    async with repeating.transaction():
        position = await repeating.fetchval(call, 0)
        waiting = asyncio.create_task(first.fetchval(call, known))
        await until(lambda: _is_waiting(connection, first))
    with pytest.raises(asyncpg.UniqueViolationError):
        await within(waiting)
    assert await repeating.fetchval(call, 0) == position
    assert await stored(connection) == 1
    await first.close()
    await repeating.close()


async def test_call_that_is_repeated_while_it_is_under_way_is_answered_once(
    connection: Connection, database_url: str
) -> None:
    call = (
        "SELECT first_id FROM pgchannels.deliver(1, 'infinity', '{topic:asgi:room}', NULL, '{x}', NULL, NULL, 60, $1)"
    )
    known = await connection.fetchval("SELECT last_id FROM pgchannels.extent()")
    first, repeating = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    async with first.transaction():
        position = await first.fetchval(call, known)
        waiting = asyncio.create_task(repeating.fetchval(call, 0))
        await until(lambda: _is_waiting(connection, repeating))
    assert await within(waiting) == position
    assert await stored(connection) == 1
    await first.close()
    await repeating.close()


async def _is_waiting(connection: Connection, waiting: Connection) -> bool:
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    return bool(await connection.fetchval(query, waiting.get_server_pid()))


async def test_publish_that_arrives_when_the_log_has_forgotten_it_is_not_delivered_twice(
    database_url: str, proxy: Proxy, connection: Connection
) -> None:
    async with (
        MessageLayer(database_url, expiry=1) as layer,
        MessageLayer(proxy.url, expiry=1, heartbeat=HEARTBEAT_SECONDS) as behind,
        layer.subscribe("room") as subscription,
    ):
        proxy.freeze_at(b"original")
        publishing = asyncio.create_task(behind.publish("room", "original"))
        await within(proxy.holding(b"original"))
        proxy.cut()
        await within(publishing)
        assert (await within(anext(subscription))).payload == "original"
        await until(lambda: _is_empty(connection))
        proxy.restore()
        await within(proxy.settled())
        await behind.publish("room", "after")
        assert (await within(anext(subscription))).payload == "after"


async def test_publish_whose_answer_is_cut_off_is_resolved(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    async with layer.subscribe("room") as subscription:
        proxy.freeze("to_client", new_connections=False)
        publishing = asyncio.create_task(behind.publish("room", "answered in vain"))
        message = await within(anext(subscription))
        proxy.cut()
        assert await within(publishing) == message.position
        await layer.publish("room", "after")
        assert (await within(anext(subscription))).payload == "after"
        assert await stored(connection) == 2


async def test_publish_on_frozen_connections_says_in_time_that_it_may_have_been_sent(
    layer: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    async with (
        layer.subscribe("room") as subscription,
        MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS, send_timeout=1) as behind,
    ):
        proxy.freeze()
        with pytest.raises(DatabaseUnavailable) as raised:
            await within(behind.publish("room", "uncertain"))
        assert raised.value.may_have_been_sent
        proxy.restore()
        await within(behind.publish("room", "after"))
        await within(proxy.settled())
        await behind.publish("room", "last")
        received = [(await within(anext(subscription))).payload]
        while received[-1] != "last":
            received.append((await within(anext(subscription))).payload)
        assert received.count("uncertain") <= 1
        assert received.count("after") == 1


async def test_publish_that_never_reached_a_server_says_that_it_was_not_sent(
    layer: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    async with MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS, send_timeout=1) as behind:
        proxy.refuse()
        proxy.cut()
        with suppress(DatabaseUnavailable):
            await within(behind.publish("room", "perhaps on its way when it was cut"))
        with pytest.raises(DatabaseUnavailable) as raised:
            await within(behind.publish("room", "refused"))
        assert not raised.value.may_have_been_sent
        proxy.restore()
        await within(behind.publish("room", "after"))
        assert b"refused" not in await payloads(connection)


async def test_messages_that_wait_for_the_database_are_bounded_and_others_wait_for_room(proxy: Proxy) -> None:
    megabytes = 8
    async with MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS, send_timeout=2) as behind:
        proxy.refuse()
        proxy.cut()
        publishing = [asyncio.create_task(behind.publish("room", bytes(megabytes << 20))) for _ in range(12)]
        backlog = node_of(behind).sender._writer._backlog
        while not backlog._in_line:  # noqa: ASYNC110 (the condition is no event of the test)
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the others have begun as well
        assert backlog._waiting_bytes <= 64 << 20
        outcomes = await within(asyncio.gather(*publishing, return_exceptions=True))
        assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailable}
        proxy.restore()
        await within(behind.publish("room", "after"))


async def test_claim_on_a_half_open_connection_is_made_again_on_another(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    proxy.freeze_at(b"queue:asgi:jobs")
    claiming = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(b"queue:asgi:jobs"))
    await layer.send("jobs", "waiting")
    async with asyncio.timeout(NOTICED_SECONDS):
        assert await claiming == "waiting"


async def test_claim_that_arrives_late_takes_nothing_from_the_queue(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    await layer.send("jobs", 0)
    assert await within(behind.receive("jobs")) == 0
    proxy.freeze_at(b"queue:asgi:jobs")
    claiming = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(b"queue:asgi:jobs"))
    proxy.cut()
    await layer.send("jobs", 1)
    assert await within(claiming) == 1
    await layer.send("jobs", 2)
    proxy.restore()
    await within(proxy.settled())
    assert await within(behind.receive("jobs")) == 2


async def test_claim_whose_answer_is_cut_off_loses_nothing(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    proxy.freeze_at(b"claimed in vain")
    await layer.send("jobs", "claimed in vain")
    claiming = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(b"claimed in vain"))
    proxy.cut()
    assert await within(claiming) == "claimed in vain"


async def test_claim_whose_answer_is_lost_twice_while_its_layer_closes_loses_nothing(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    proxy.freeze_at(b"claimed in vain")
    await layer.send("jobs", "claimed in vain")
    claiming = asyncio.create_task(behind.receive("jobs"))
    await within(proxy.holding(b"claimed in vain"))
    closing = asyncio.create_task(behind.close())
    await asyncio.sleep(0)
    proxy.restore(held="drop")
    proxy.freeze_at(b"claimed in vain")
    await within(proxy.holding(b"claimed in vain"))
    proxy.restore(held="drop")
    await within(closing)
    with pytest.raises(LayerClosed):
        await claiming
    assert await within(layer.receive("jobs")) == "claimed in vain"


async def test_unsubscription_that_arrives_late_does_not_end_a_later_subscription(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    async with behind.subscribe("room"):
        pass
    proxy.freeze_at(b"topic:asgi:room")
    await within(proxy.holding(b"topic:asgi:room"))
    proxy.cut()
    async with behind.subscribe("room") as subscription:
        proxy.restore()
        await within(proxy.settled())
        await layer.publish("room", "still here")
        async with asyncio.timeout(NOTICED_SECONDS):
            assert (await anext(subscription)).payload == "still here"


async def test_frozen_layer_closes_in_time(proxy: Proxy) -> None:
    before = asyncio.all_tasks()
    layer = MessageLayer(proxy.url, heartbeat=HEARTBEAT_SECONDS, send_timeout=1)
    await layer.open()
    subscription = layer.subscribe("room")
    await subscription.__aenter__()
    proxy.freeze()
    publishing = asyncio.create_task(layer.publish("room", "frozen"))
    await within(proxy.holding(b"frozen"))
    await within(layer.close())
    with pytest.raises((DatabaseUnavailable, LayerClosed)) as raised:
        await publishing
    assert raised.value.may_have_been_sent
    assert asyncio.all_tasks() == before


async def _is_empty(connection: Connection) -> bool:
    return await stored(connection) == 0


async def test_layer_closes_while_a_probe_comes_back(database_url: str) -> None:
    before = asyncio.all_tasks()
    for _ in range(25):
        layer = MessageLayer(database_url, heartbeat=0.001)  # there is always a probe on its way
        await layer.open()
        await layer.publish("room", "one round trip")
        await within(layer.close())
    assert asyncio.all_tasks() == before
