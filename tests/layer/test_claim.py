"""Work on messages of a queue: acknowledged when it is done, given back when it fails."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from pgchannels import ConfigurationError, Gap, GapReason, InvalidName, LayerClosed, MessageLayer, MessagesLost, Work
from tests.support.log import let_pass, lose_the_log, rotate
from tests.support.roads import Connection, deliver, node_of
from tests.support.waiting import until, within

QUEUE = "queue:asgi:jobs"


class WorkFailedError(Exception):
    """What a block raises in these tests."""


async def fail_at(layer: MessageLayer, queue: str = "jobs", *, attempts: int = 5) -> tuple[object, int]:
    """Claim, and raise in the block; returns the payload and the attempts."""
    seen: list[Work] = []
    with suppress(WorkFailedError):
        async with layer.claim(queue, attempts=attempts) as work:
            seen.append(work)
            raise WorkFailedError
    return seen[0].payload, seen[0].attempts


async def work_at(layer: MessageLayer, queue: str = "jobs") -> tuple[object, int]:
    """Claim, and let the block end well; returns the payload and the attempts."""
    async with layer.claim(queue) as work:
        return work.payload, work.attempts


async def open_work(connection: Connection) -> int:
    """How many messages are under work, by the database."""
    count: int = await connection.fetchval("SELECT count(*) FROM pgchannels.open_work($1)", QUEUE)
    return count


def no_work(connection: Connection) -> Callable[[], Awaitable[bool]]:
    """Whether nothing is under work."""

    async def is_none() -> bool:
        return await open_work(connection) == 0

    return is_none


async def test_message_is_acknowledged_when_the_block_ends(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    position = await layer.send("jobs", {"image": 7})
    async with other_layer.claim("jobs") as work:
        assert (work.channel, work.payload, work.attempts) == ("jobs", {"image": 7}, 1)
        assert work.position == position
        assert work.headers == {}
        assert await open_work(connection) == 1
    await until(no_work(connection))
    assert await connection.fetchval("SELECT pgchannels.give_back_abandoned($1)", QUEUE) is None


async def test_message_of_a_later_version_fails_here_and_stays_for_those_that_can_read_it(
    layer: MessageLayer, connection: Connection
) -> None:
    envelope = b"\xff of a later version"
    waiting = "SELECT payload FROM pgchannels.message WHERE address = 'queue:asgi:jobs.dead' AND number IS NOT NULL"

    async def is_dead() -> bool:
        return bool(await connection.fetchval(waiting) == envelope)

    await deliver(connection, QUEUE, None, [envelope])
    claiming = asyncio.create_task(fail_at(layer, attempts=3))
    await until(is_dead)
    await layer.send("jobs", "good")
    assert await within(claiming) == ("good", 1)
    assert node_of(layer).receiver.payloads.unreadable == 3


async def test_message_goes_back_with_its_attempts_counted_when_the_block_raises(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    await layer.send("jobs", "x")
    assert await within(fail_at(layer)) == ("x", 1)
    assert await within(fail_at(other_layer)) == ("x", 2)
    assert await within(work_at(layer)) == ("x", 3)


async def test_message_goes_back_when_the_task_is_cancelled(layer: MessageLayer) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with layer.claim("jobs"):
            entered.set()
            await asyncio.Event().wait()

    await layer.send("jobs", "x")
    working = asyncio.create_task(work())
    await within(entered.wait())
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()
    assert await within(work_at(layer)) == ("x", 2)


async def test_cancelled_claim_leaves_the_message_to_others_uncounted(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    waiting = asyncio.create_task(work_at(layer))
    await until(lambda: asyncio.sleep(0, QUEUE in node_of(layer).receiver.queues._taker.tokens))
    sending = asyncio.create_task(other_layer.send("jobs", "x"))
    await sending
    waiting.cancel()
    await asyncio.wait([waiting])
    node_of(layer).receiver.queues.give_back_soon()  # as at a heartbeat
    if waiting.cancelled():
        assert await within(work_at(other_layer)) == ("x", 1)


async def test_order_is_kept_where_nobody_failed_and_what_failed_comes_last(layer: MessageLayer) -> None:
    for number in range(5):
        await layer.send("jobs", number)
    assert await within(work_at(layer)) == (0, 1)
    assert await within(fail_at(layer)) == (1, 1)
    await until(lambda: asyncio.sleep(0, not node_of(layer).receiver.queues.works.queues))
    assert [await within(work_at(layer)) for _ in range(4)] == [(2, 1), (3, 1), (4, 1), (1, 2)]


async def test_message_that_failed_as_often_as_it_may_is_a_dead_letter_to_claim_or_receive(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    for payload in ({"n": 1}, b"two"):
        await layer.send("jobs", payload)
        assert [await within(fail_at(layer, attempts=2)) for _ in range(2)] == [(payload, 1), (payload, 2)]
    await layer.send("jobs", "alive")
    assert await within(work_at(layer)) == ("alive", 1)
    assert await within(other_layer.receive("jobs.dead")) == {"n": 1}
    # Dead letters stay, however often work on them fails.
    assert [await within(fail_at(other_layer, "jobs.dead", attempts=1)) for _ in range(2)] == [(b"two", 3), (b"two", 4)]
    assert await within(work_at(other_layer, "jobs.dead")) == (b"two", 5)


async def test_sealed_message_can_be_read_after_it_was_given_back_and_as_a_dead_letter(database_url: str) -> None:
    async with MessageLayer(database_url, symmetric_encryption_keys=["secret"]) as layer:
        await layer.send("jobs", "sealed")
        assert [await within(fail_at(layer, attempts=2)) for _ in range(2)] == [("sealed", 1), ("sealed", 2)]
        assert await within(work_at(layer, "jobs.dead")) == ("sealed", 3)


async def test_copy_of_a_topic_can_be_read_as_a_dead_letter(database_url: str, connection: Connection) -> None:
    await connection.execute("INSERT INTO pgchannels.member VALUES ('topic:asgi:room', 'queue:asgi:jobs', 1000)")
    async with MessageLayer(database_url, symmetric_encryption_keys=["secret"]) as layer:
        await layer.publish("room", "to all", headers={"trace": "7"})
        assert await within(fail_at(layer, attempts=1)) == ("to all", 1)
        async with layer.claim("jobs.dead") as work:
            assert (work.payload, work.headers) == ("to all", {"trace": "7"})


async def test_dead_letter_moved_to_another_queue_cannot_be_read(database_url: str, connection: Connection) -> None:
    async with MessageLayer(database_url, symmetric_encryption_keys=["secret"]) as layer:
        await layer.send("jobs", "sealed")
        await connection.execute("UPDATE pgchannels.message SET address = 'queue:asgi:others', channel = $1", QUEUE)
        with pytest.raises(MessagesLost) as lost:
            await within(layer.receive("others"))
        assert lost.value.gap.reason is GapReason.UNREADABLE


async def test_message_that_cannot_be_read_is_a_dead_letter_in_the_end(
    layer: MessageLayer, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with MessageLayer(database_url, symmetric_encryption_keys=["secret"]) as with_keys:
        working = asyncio.create_task(work_at(layer))
        await with_keys.send("jobs", "sealed")
        assert await within(work_at(with_keys, "jobs.dead")) == ("sealed", 6)
        await layer.send("jobs", "for all")
        assert await within(working) == ("for all", 1)
    assert "passed over message" in caplog.text


async def test_work_that_takes_too_long_is_given_to_another_and_late_when_it_is_done(
    layer: MessageLayer, other_layer: MessageLayer, caplog: pytest.LogCaptureFixture
) -> None:
    await layer.send("jobs", "slow")
    async with layer.claim("jobs", visible_after=0.05) as work:
        assert await within(work_at(layer)) == ("slow", 2)
        assert work.attempts == 1
    await until(lambda: asyncio.sleep(0, not node_of(layer).receiver.queues.works.queues))
    assert f"{QUEUE}: 1 messages had been given to others" in caplog.text
    await other_layer.send("jobs", "next")
    assert await within(work_at(other_layer)) == ("next", 1)


async def test_work_of_a_node_whose_lease_has_ended_is_given_to_another(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    await layer.send("jobs", "x")
    claim = layer.claim("jobs")
    await claim.__aenter__()
    await connection.execute("DELETE FROM pgchannels.lease WHERE node = $1", node_of(layer).identity.id)
    node_of(other_layer).beat_now()
    assert await within(work_at(other_layer)) == ("x", 2)
    await claim.__aexit__(None, None, None)


async def test_receive_and_claim_share_a_queue(layer: MessageLayer, other_layer: MessageLayer) -> None:
    for number in range(4):
        await layer.send("jobs", number)
    assert await within(layer.receive("jobs")) == 0
    assert await within(work_at(other_layer)) == (1, 1)
    assert await within(other_layer.receive("jobs")) == 2
    assert await within(work_at(layer)) == (3, 1)


async def test_many_workers_in_one_process_do_every_job_once(layer: MessageLayer, other_layer: MessageLayer) -> None:
    done: list[object] = []
    finished = asyncio.Event()

    async def worker(layer: MessageLayer) -> None:
        while True:
            async with layer.claim("jobs") as work:
                done.append(work.payload)
                if len(done) == 300:
                    finished.set()

    workers = [asyncio.create_task(worker(node)) for node in (layer, other_layer) for _ in range(4)]
    await asyncio.gather(*[layer.send("jobs", number) for number in range(300)])
    await within(finished.wait())
    for task in workers:
        task.cancel()
    await asyncio.wait(workers)
    assert sorted(done, key=str) == sorted(range(300), key=str)


async def test_closing_gives_back_what_is_under_work_and_acknowledges_what_is_done(
    layer: MessageLayer, database_url: str
) -> None:
    closing = MessageLayer(database_url)
    await closing.open()
    for payload in ("done", "under work"):
        await layer.send("jobs", payload)
    assert await within(work_at(closing)) == ("done", 1)
    async with closing.claim("jobs") as work:
        assert work.payload == "under work"
        await within(closing.close())
    assert await within(work_at(layer)) == ("under work", 2)
    with pytest.raises(LayerClosed):
        async with closing.claim("jobs"):
            pass


async def test_messages_that_expired_in_the_queue_are_reported(layer: MessageLayer, connection: Connection) -> None:
    gaps: list[Gap] = []
    for payload in ("expired", "fresh"):
        await layer.send("jobs", payload)
        await connection.execute("UPDATE pgchannels.message SET expires_at = now() WHERE number = 1")
    async with layer.claim("jobs", on_gap=gaps.append) as work:
        assert work.payload == "fresh"
    assert gaps == [Gap(GapReason.EXPIRED, 1)]
    await lose_the_log(connection)
    with pytest.raises(MessagesLost):
        async with asyncio.timeout(60), layer.claim("jobs"):
            pass


async def test_message_that_may_wait_for_days_survives_the_rotation_of_a_short_log(
    layer: MessageLayer, connection: Connection
) -> None:
    await layer.send("jobs", "waits", expiry=10 * 86400)
    await layer.send("jobs", "does not wait")
    async with layer.claim("jobs") as work:
        assert work.payload == "waits"
        await layer.send("jobs", "waits as well", expiry=10 * 86400)
        await connection.execute("UPDATE pgchannels.message SET expires_at = now() WHERE number = 2")
        for _ in range(9):
            await let_pass(connection, 30)
            await rotate(connection)
        assert await open_work(connection) == 1
    with pytest.raises(MessagesLost) as lost:
        await within(work_at(layer))
    assert lost.value.gap == Gap(GapReason.EXPIRED, 1)
    assert await within(fail_at(layer)) == ("waits as well", 1)
    for _ in range(9):
        await let_pass(connection, 30)
        await rotate(connection)
    assert await within(work_at(layer)) == ("waits as well", 2)
    await until(no_work(connection))


async def test_job_sent_in_a_transaction_is_claimed_once_it_commits(layer: MessageLayer, database_url: str) -> None:
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    working = asyncio.create_task(work_at(layer))
    async with engine.begin() as transaction:
        await layer.send("jobs", "committed", expiry=86400, connection=transaction)
    async with engine.connect() as transaction:
        await layer.send("jobs", "rolled back", connection=transaction)
    await engine.dispose()
    assert await within(working) == ("committed", 1)
    await layer.send("jobs", "next")
    assert await within(work_at(layer)) == ("next", 1)


async def test_work_is_frozen_and_can_be_copied(layer: MessageLayer) -> None:
    await layer.send("jobs", 1)
    async with layer.claim("jobs") as work:
        assert replace(work, attempts=2).payload == 1


@pytest.mark.parametrize("name", ["a!b", "a" * 95, "", "a b"])
def test_name_that_no_claimed_queue_can_have_is_refused(layer: MessageLayer, name: str) -> None:
    with pytest.raises(InvalidName):
        layer.claim(name)


def test_longest_names_are_accepted(layer: MessageLayer) -> None:
    layer.claim("a" * 94)
    layer.claim("a" * 94 + ".dead")


@pytest.mark.parametrize("option", [{"attempts": 0}, {"visible_after": 0}, {"visible_after": "1"}, {"on_gap": 1}])
def test_impossible_option_is_named(layer: MessageLayer, option: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        layer.claim("jobs", **option)  # type: ignore[arg-type]
