"""Some topics are kept for longer, and what has left the log is known for each topic."""

import asyncio
from random import Random
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgchannels import Gap, GapReason, MessageLayer, Position
from pgchannels.codec import Codec
from pgchannels.database.statements.reading import PAGE_ROWS
from tests.layer.test_replay import let_grow_old, payloads, replayed, seconds
from tests.support.log import lose_the_log, rotate
from tests.support.roads import deliver, node_of
from tests.support.waiting import within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

EXPIRED: Final = Gap(GapReason.EXPIRED, None)
DAY: Final = 86_400


async def keep(connection: Connection, pattern: str, for_seconds: int = DAY, prefix: str = "asgi") -> None:
    await connection.execute("SELECT pgchannels.keep_topics_for($1, $2, $3)", pattern, prefix, float(for_seconds))


async def grow_old(connection: Connection, total_seconds: int, *, step: int = 30) -> None:
    """Let time pass, in steps after which the log rotates."""
    for _ in range(0, total_seconds, step):
        await let_grow_old(connection, seconds(step))


async def test_topic_by_pattern_is_kept_for_longer_than_others(layer: MessageLayer, connection: Connection) -> None:
    await keep(connection, "orders.*")
    await keep(connection, "alarm")
    topics = ["orders.1", "orders.2", "alarm", "alarm2", "room", "orders"]
    begin = await layer.publish_many([(topic, topic) for topic in topics])
    await grow_old(connection, 300)
    await layer.publish_many([(topic, "new") for topic in topics])
    for topic, position in zip(topics, begin, strict=True):
        is_kept = topic in {"orders.1", "orders.2", "alarm"}
        assert await payloads(layer, topic) == ([topic, "new"] if is_kept else ["new"])
        assert await payloads(layer, topic, since=seconds(600)) == ([topic, "new"] if is_kept else ["new"])
        before = Position(position.epoch, position.offset - 1)
        assert await replayed(layer, topic, since=before) == ([topic, "new"] if is_kept else [EXPIRED, "new"])
        assert await replayed(layer, topic, since=seconds(400)) == [
            *([topic] if is_kept else [EXPIRED]),
            "new",
            "last",
        ]


async def test_kept_topic_leaves_the_log_after_its_own_retention(layer: MessageLayer, connection: Connection) -> None:
    await keep(connection, "orders.*", 600)
    first = await layer.publish("orders.1", 1)
    await grow_old(connection, 600)
    assert await replayed(layer, "orders.1", since=Position(first.epoch, first.offset - 1)) == [1]
    await grow_old(connection, 600, step=50)
    assert await replayed(layer, "orders.1", since=Position(first.epoch, first.offset - 1)) == [EXPIRED, "last"]
    assert await replayed(layer, "orders.1", since=first) == ["last", "last"]
    await grow_old(connection, 3000, step=50)
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.message WHERE slot >= 100") == 0
    kept_slots = (
        "SELECT count(*) FROM pg_class WHERE oid = ANY (ARRAY(SELECT inhrelid FROM pg_inherits)) AND relname ~ $1"
    )
    assert await connection.fetchval(kept_slots, "^message_1[0-9]{2}$") <= 4


async def test_message_with_an_expiry_of_its_own_is_not_kept_for_longer(
    layer: MessageLayer, connection: Connection
) -> None:
    await keep(connection, "orders.*")
    await layer.publish_many([("orders.1", 1)])
    await layer.publish("orders.1", "short", expiry=1)
    await connection.execute("UPDATE pgchannels.message SET expires_at = expires_at - interval '300 s'")
    await grow_old(connection, 300)
    assert await payloads(layer, "orders.1") == [1]


async def test_key_of_a_kept_topic_is_remembered_as_long_as_its_message(
    layer: MessageLayer, connection: Connection
) -> None:
    await keep(connection, "orders.*")
    first = await layer.publish("orders.1", 1, key="once")
    await layer.publish("room", 1, key="once")
    await grow_old(connection, 300)
    assert await layer.publish("orders.1", 2, key="once") == first
    await layer.publish("room", 2, key="once")
    assert (await payloads(layer, "orders.1"), await payloads(layer, "room")) == ([1], [2])


async def test_topic_that_is_kept_from_now_on_does_not_hide_what_was_gone(
    layer: MessageLayer, connection: Connection
) -> None:
    first = await layer.publish("orders.1", "gone")
    before = Position(first.epoch, first.offset - 1)
    await grow_old(connection, 120)
    await keep(connection, "orders.*")
    await layer.publish("orders.1", 1)
    await grow_old(connection, 120)
    assert await replayed(layer, "orders.1", since=before) == [EXPIRED, 1]
    assert await replayed(layer, "orders.1", since=first) == [1, "last"]
    await keep(connection, "orders.*", 0)
    await grow_old(connection, 120)
    await keep(connection, "orders.*")
    assert await replayed(layer, "orders.1", since=first) == [EXPIRED]


async def test_crash_is_a_gap_of_a_kept_topic_too(database_url: str, connection: Connection) -> None:
    await keep(connection, "orders.*")
    async with MessageLayer(database_url) as layer:
        first = await layer.publish("orders.1", 1)
        await grow_old(connection, 120)
    await lose_the_log(connection)
    await connection.execute("TRUNCATE pgchannels.kept_slot")
    async with MessageLayer(database_url) as layer:
        assert await replayed(layer, "orders.1", since=first) == [Gap(GapReason.CRASH, None)]
        assert await replayed(layer, "orders.1", since=seconds(DAY)) == [Gap(GapReason.CRASH, None), "last"]


async def test_layers_with_other_prefixes_keep_their_own_topics(database_url: str, connection: Connection) -> None:
    await keep(connection, "*", prefix="other")
    async with MessageLayer(database_url) as layer, MessageLayer(database_url, prefix="other") as other:
        for one in (layer, other):
            await one.publish("orders.1", 1)
        await grow_old(connection, 120)
        assert (await payloads(layer, "orders.1"), await payloads(other, "orders.1")) == ([], [1])


async def test_queue_gets_its_copies_once_from_a_kept_topic(layer: MessageLayer, connection: Connection) -> None:
    await keep(connection, "orders.*")
    query = "INSERT INTO pgchannels.member VALUES ('topic:asgi:orders.1', 'queue:asgi:jobs', 9)"
    await connection.execute(query)
    await layer.publish("orders.1", 1)
    assert await within(layer.receive("jobs")) == 1
    await grow_old(connection, 120)
    await layer.publish("orders.1", 2)
    assert await within(layer.receive("jobs")) == 2


@pytest.mark.parametrize(
    ("pattern", "prefix"), [("", "asgi"), ("a b", "asgi"), ("*a", "asgi"), ("x" * 100, "asgi"), ("a", "a b"), ("a", "")]
)
async def test_impossible_pattern_is_refused(connection: Connection, pattern: str, prefix: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError):
        await keep(connection, pattern, prefix=prefix)


async def test_old_position_of_a_topic_that_lost_nothing_is_no_gap(layer: MessageLayer, connection: Connection) -> None:
    """Positions count for each topic by itself, whatever has left the log."""
    seen = {topic: await layer.publish(topic, "seen") for topic in ("quiet", "busy")}
    for number in range(10):
        await layer.publish("busy", number)
        await grow_old(connection, 30)
    assert await replayed(layer, "quiet", since=seen["quiet"]) == []
    assert (await replayed(layer, "busy", since=seen["busy"]))[0] == EXPIRED
    assert (await replayed(layer, "quiet", "busy", since=seen["quiet"]))[0] == EXPIRED


async def test_what_leaves_the_log_between_two_pages_of_a_replay_is_a_gap(
    owner_url: str, layer: MessageLayer, connection: Connection
) -> None:
    """Also if its slot was locked, and a later one left the log before."""
    begin = await layer.position("room")
    dump = await asyncpg.connect(owner_url)
    await dump.execute("BEGIN; LOCK TABLE pgchannels.message_0 IN ACCESS SHARE MODE")
    await layer.publish_many([("room", number) for number in range(PAGE_ROWS + 100)])
    for _ in range(4):
        await grow_old(connection, 30)
        await layer.publish("other", "x")
    received: list[Any] = []
    async with layer.subscribe("room", since=begin, on_gap=received.append) as subscription:
        received.append((await within(anext(subscription))).payload)
        await dump.close()
        await rotate(connection)
        await layer.publish("room", "end")
        while received[-1] != "end":
            received.append((await within(anext(subscription))).payload)
    assert received == [*range(PAGE_ROWS), EXPIRED, "end"]


async def test_node_that_was_away_for_long_reports_only_what_was_lost(
    layer: MessageLayer, connection: Connection
) -> None:
    gaps = dict[str, list[Gap]](quiet=[], busy=[])
    async with (
        layer.subscribe("quiet", on_gap=gaps["quiet"].append) as quiet,
        layer.subscribe("busy", on_gap=gaps["busy"].append) as busy,
    ):
        await layer.publish_many([("quiet", 1), ("busy", 1)])
        assert [(await within(anext(one))).payload for one in (quiet, busy)] == [1, 1]
        async with connection.transaction():  # a message that the node does not hear
            await connection.execute("CREATE TEMPORARY TABLE hosted AS SELECT * FROM pgchannels.subscription")
            await connection.execute("DELETE FROM pgchannels.subscription")
            await deliver(connection, "topic:asgi:busy", None, [Codec().encode(2, bound_to="topic:asgi:busy")])
            await connection.execute("INSERT INTO pgchannels.subscription SELECT * FROM hosted")
        await grow_old(connection, 120)
        node_of(layer)._listener.reconnect()
        await layer.publish_many([("quiet", 3), ("busy", 3)])
        assert [(await within(anext(one))).payload for one in (quiet, busy)] == [3, 3]
    assert gaps == {"quiet": [], "busy": [EXPIRED]}


def test_reader_gets_all_that_is_there_and_a_gap_if_and_only_if_something_is_not(
    database_url: str, owner_url: str
) -> None:
    """Whatever leaves the log, and in whichever order the slots do."""
    topics = st.sampled_from(["kept.1", "kept.2", "room", "news", "silent"])
    steps = st.one_of(
        st.tuples(st.just("publish"), topics),
        st.tuples(st.just("pass"), st.integers(10, 70)),
        st.tuples(st.just("read"), topics),
        st.tuples(st.just("keep"), st.sampled_from([0, 200, 1000])),
        st.tuples(st.just("lock"), st.integers(0, 2)),
    )

    @given(steps=st.lists(steps, min_size=5, max_size=40), seed=st.randoms())
    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    def require_exact(steps: list[tuple[str, Any]], seed: Random) -> None:
        runner.run(follow(steps, seed))

    async def follow(steps: list[tuple[str, Any]], seed: Random) -> None:
        published = dict[str, list[Position]]()
        await layer.publish("mark", "begin")
        begin = await layer.position("mark")
        for step, value in steps:
            if step == "publish":
                published.setdefault(value, []).append(await layer.publish(value, len(published.get(value, ()))))
            elif step == "pass":
                await let_grow_old(connection, seconds(value))
            elif step == "keep":
                await keep(connection, "kept.*", value)
            elif step == "lock":
                await end(locking)
                await locking.execute(f"BEGIN; LOCK TABLE pgchannels.message_{value} IN ACCESS SHARE MODE")
            else:
                await require_all_or_a_gap(value, seed.choice([begin, *published.get(value, ())]), published)
        await end(locking)

    async def require_all_or_a_gap(topic: str, since: Position, published: dict[str, list[Position]]) -> None:
        rows = await connection.fetch("SELECT id FROM pgchannels.message WHERE address = $1", f"topic:asgi:{topic}")
        there = {row["id"] for row in rows}
        wanted = [(number, one) for number, one in enumerate(published.get(topic, ())) if one > since]
        is_whole = all(one.to_id() in there for _, one in wanted)
        received = await replayed(layer, topic, since=since)
        expected: list[Any] = [number for number, one in wanted if one.to_id() in there]
        published.setdefault(topic, []).append(await layer.publish(topic, len(published.get(topic, ()))))
        assert [one for one in received if one != "last"] == ([] if is_whole else [EXPIRED]) + expected

    async def end(locking: Connection) -> None:
        if locking.is_in_transaction():
            await locking.execute("COMMIT")

    with asyncio.Runner() as runner:
        layer = MessageLayer(database_url, heartbeat=600)
        connection: Connection = runner.run(asyncpg.connect(owner_url))
        locking: Connection = runner.run(asyncpg.connect(owner_url))
        runner.run(layer.open())
        require_exact()
        runner.run(layer.close())
        for one in (connection, locking):
            runner.run(one.close())
