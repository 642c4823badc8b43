"""Sending from loops and threads that do not receive."""

import asyncio
import gc
import multiprocessing
import threading
import traceback
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest

from pgchannels import DatabaseRefused, MessageLayer, PgChannelsError, SchemaMissing
from tests.support.connections import connections_to_this_database, has_connections
from tests.support.roads import process_of
from tests.support.waiting import LIMIT_SECONDS, until, within


async def test_thousand_loops_in_ten_threads_send_over_one_connection(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = MessageLayer(database_url)

    def publish_with_many_loops(thread: int) -> None:
        for number in range(100):
            asyncio.run(_publish(layer, [thread, number]))

    with ThreadPoolExecutor(10) as threads:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[loop.run_in_executor(threads, publish_with_many_loops, n) for n in range(10)])
    assert await connections_to_this_database(connection) == 1
    async with layer:
        history = await layer.history("room", limit=2000)
        await until(lambda: has_connections(connection, 3))  # the node has its own, the other one was given back
        await asyncio.to_thread(asyncio.run, _publish(layer, "by another loop"))
        assert await connections_to_this_database(connection) == 4
    await until(lambda: has_connections(connection, 0))
    for thread in range(10):
        mine = [message.payload[1] for message in history if message.payload[0] == thread]
        assert mine == list(range(100))


async def test_process_with_a_thousand_subscribers_has_three_connections(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    subscriptions = [layer.subscribe(f"topic{number % 500}") for number in range(1000)]
    await asyncio.gather(*[subscription.__aenter__() for subscription in subscriptions])
    await layer.publish_many([(f"topic{number}", number) for number in range(500)])
    for number, subscription in enumerate(subscriptions):
        assert (await within(anext(subscription))).payload == number % 500
    assert await connections_to_this_database(connection) == 3
    for subscription in subscriptions:
        await subscription.__aexit__(None, None, None)


async def test_loop_that_ends_without_closing_disconnects(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    layer = MessageLayer(database_url)

    async def forget_to_close() -> None:
        await layer.open()
        async with layer.subscribe("room") as subscription:
            await layer.publish("room", 1)
            await anext(subscription)

    await asyncio.to_thread(asyncio.run, forget_to_close())
    await until(lambda: has_connections(connection, 0))
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 0


async def test_child_of_a_fork_begins_anew(database_url: str, layer: MessageLayer) -> None:
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", "parent")
        with warnings.catch_warnings():
            # Python warns of every fork of a process with threads; that this one is safe is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = multiprocessing.get_context("fork").Process(target=_publish_from_child, args=(layer,))
            child.start()
        await asyncio.to_thread(child.join, 30)
        assert child.exitcode == 0
        await layer.publish("room", "parent again")
        payloads = [(await within(anext(subscription))).payload for _ in range(3)]
    assert payloads == ["parent", "child", "parent again"]


async def test_background_sender_raises_what_the_database_says(empty_database_url: str) -> None:
    before = set(threading.enumerate())  # other layers of this process may have theirs
    layer = MessageLayer(empty_database_url)
    for _ in range(2):
        with pytest.raises(SchemaMissing, match="pgchannels upgrade"):
            await layer.publish("room", 1)
    await layer.close()
    assert "pgchannels sender" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_background_sender_whose_thread_has_ended_starts_another(database_url: str) -> None:
    layer = MessageLayer(database_url)
    first = layer.sync.publish("room", "by the first one")
    process_of(layer)._background.stop()
    assert not process_of(layer)._background.is_running
    assert layer.sync.publish("room", "by the next one") > first
    layer.sync.close()


def test_background_sender_that_no_longer_writes_starts_another_thread(database_url: str) -> None:
    layer = MessageLayer(database_url)
    first = layer.sync.publish("room", "by the first one")
    service, thread = process_of(layer)._background._service, process_of(layer)._background._thread
    assert service is not None
    assert thread is not None
    writing = service._sender.task
    assert writing is not None
    service.call_soon(writing.cancel)
    thread.join(LIMIT_SECONDS)
    assert layer.sync.publish("room", "by the next one") > first
    layer.sync.close()


async def test_calls_of_a_loop_that_only_sends_keep_their_order(database_url: str) -> None:
    layer = MessageLayer(database_url)
    for number in range(0, 60, 3):
        many = layer.publish_many([("room", number), ("room", number + 1)])
        await asyncio.gather(many, layer.publish("room", number + 2))
    await layer.close()
    async with layer:
        assert [message.payload for message in await layer.history("room")] == list(range(60))


def test_loops_that_gave_up_before_the_answer_came_are_not_kept(database_url: str) -> None:
    layer = MessageLayer(database_url)
    layer.sync.publish("room", "connects")
    ended: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def give_up(number: int) -> None:
        ended.append(weakref.ref(asyncio.get_running_loop()))
        sending = asyncio.ensure_future(layer.publish("room", number))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])

    for number in range(20):
        asyncio.run(give_up(number))
    layer.sync.publish("room", "behind them all")
    gc.collect()
    assert [loop for loop in ended if loop() is not None] == []
    layer.sync.close()


async def _publish(layer: MessageLayer, payload: object) -> None:
    await layer.publish("room", payload)


def _publish_from_child(layer: MessageLayer) -> None:
    asyncio.run(_publish_and_close(layer))


async def _publish_and_close(layer: MessageLayer) -> None:
    await layer.publish("room", "child")
    await layer.close()


def require_errors_of_their_own(outcomes: Sequence[object], kind: type[PgChannelsError]) -> None:
    """Each caller got an instance that has gathered no frames of others."""
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(error) for error in errors} == {kind}
    assert len(set(map(id, errors))) == len(outcomes)
    depths = {len(traceback.extract_tb(error.__traceback__)) for error in errors}
    assert max(depths) - min(depths) <= 2  # those that found it closed already come a shorter way
    assert all(str(error) == str(errors[0]) for error in errors)


async def test_each_of_many_whose_batch_is_refused_gets_an_error_of_its_own(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("ALTER TABLE pgchannels.message ADD CHECK (address <> 'topic:asgi:refused')")
    outcomes = await asyncio.gather(*[layer.publish("refused", 1) for _ in range(100)], return_exceptions=True)
    require_errors_of_their_own(outcomes, DatabaseRefused)
    assert len({id(outcome.__cause__) for outcome in outcomes if isinstance(outcome, BaseException)}) == 1


async def test_each_of_many_that_send_in_the_background_without_tables_gets_an_error_of_its_own(
    empty_database_url: str,
) -> None:
    layer = MessageLayer(empty_database_url)
    outcomes = await asyncio.gather(*[layer.publish("room", 1) for _ in range(100)], return_exceptions=True)
    require_errors_of_their_own(outcomes, SchemaMissing)
    await layer.close()


async def test_each_of_many_that_open_in_vain_gets_an_error_of_its_own(empty_database_url: str) -> None:
    layer = MessageLayer(empty_database_url)
    outcomes = await asyncio.gather(*[layer.open() for _ in range(100)], return_exceptions=True)
    require_errors_of_their_own(outcomes, SchemaMissing)
    await layer.close()
