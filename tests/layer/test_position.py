"""Where a topic stands: a snapshot and what follows its position are all that there is, each message once."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgchannels import Gap, GapReason, InvalidName, LayerClosed, MessageLayer, Position
from pgchannels.codec import Codec
from pgchannels.names import topic_address
from tests.support.log import lose_the_log, rotate, rotate_everything_away
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# Their addresses are in different stripes: a transaction that publishes to one delays no other.
TOPICS: Final = ("news", "room", "orders", "unused")
COUNT: Final = "SELECT id FROM pgchannels.message WHERE address = $1 ORDER BY id"
DELIVER: Final = """
SELECT first_id
FROM pgchannels.deliver((random() * 2^62)::bigint, 'infinity', $1::text[], NULL, $2::bytea[], NULL, NULL, 3600)
"""
ENVELOPE: Final = Codec().encode("x", bound_to="")


@dataclass(slots=True)
class Snapshot:
    """What a transaction has seen of each topic, and where it says that each stands."""

    seen: dict[str, list[int]] = field(default_factory=dict)
    positions: dict[str, str] = field(default_factory=dict)


async def take_snapshot(connection: Connection, topics: Sequence[str], pause: Callable[[], Any]) -> Snapshot:
    """Ask for positions and count messages in one transaction, which goes on meanwhile."""
    snapshot = Snapshot()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for topic in topics:
            rows = await connection.fetch(COUNT, topic_address("asgi", topic))
            snapshot.seen[topic] = [message_id for (message_id,) in rows]
            await pause()
            snapshot.positions[topic] = await connection.fetchval("SELECT pgchannels.position($1)", topic)
    return snapshot


async def require_rest(layer: MessageLayer, connection: Connection, snapshot: Snapshot) -> None:
    """What follows a position is exactly what its snapshot does not include."""
    for topic, seen in snapshot.seen.items():
        rows = await connection.fetch(COUNT, topic_address("asgi", topic))
        history = await layer.history(topic, since=snapshot.positions[topic], limit=10**6)
        rest = [message.position.to_id() for message in history]
        assert seen + rest == [message_id for (message_id,) in rows], topic


async def publish_in(connection: Connection, topic: str, count: int) -> None:
    """Publish on this connection, in its transaction."""
    envelopes = [ENVELOPE] * count
    await connection.fetchval(DELIVER, [topic_address("asgi", topic)] * count, envelopes)


async def rotate_early(connection: Connection) -> None:
    """Make another slot current, if no batch is under way; none is emptied."""
    await connection.execute("UPDATE pgchannels.log_state SET rotated_at = now() - interval '30 min'")
    try:
        await rotate(connection)
    except asyncpg.LockNotAvailableError:
        await connection.execute("UPDATE pgchannels.log_state SET rotated_at = now()")


async def no_pause() -> None:
    pass


async def test_position_is_that_of_the_last_message_or_later(layer: MessageLayer) -> None:
    first = await layer.publish("room", 1)
    position = await layer.position("room")
    assert position >= first
    second = await layer.publish("room", 2)
    assert second > position
    assert await layer.history("room", since=position) == await layer.history("room", since=first)


async def test_subscription_since_a_position_begins_without_a_gap_however_old_the_log(
    layer: MessageLayer, connection: Connection
) -> None:
    await layer.publish("room", "gone")
    await rotate_everything_away(connection)
    for topic in ("room", "unused"):
        async with layer.subscribe(topic, since=await layer.position(topic)) as subscription:
            await layer.publish(topic, "next")
            assert (await within(anext(subscription))).payload == "next"


async def test_position_begins_a_log_that_has_vanished(layer: MessageLayer, connection: Connection) -> None:
    await layer.publish("room", "gone")
    await lose_the_log(connection)
    position = await layer.position("room")
    await layer.publish("room", "next")
    async with layer.subscribe("room", since=position) as subscription:
        assert (await within(anext(subscription))).payload == "next"


async def test_position_without_a_log_is_before_all_that_follow(database_url: str, connection: Connection) -> None:
    for _ in range(3):
        async with connection.transaction(readonly=True):
            position = await connection.fetchval("SELECT pgchannels.position('room')")
        async with MessageLayer(database_url) as layer:
            assert await layer.publish("room", "next") > Position.parse(position)
            assert len(await layer.history("room", since=position)) == 1
        await lose_the_log(connection)


@pytest.mark.parametrize("has_crashed", [False, True])
async def test_subscription_since_a_position_without_a_log_begins_without_a_gap_unless_one_was_lost(
    database_url: str, connection: Connection, has_crashed: bool
) -> None:
    for _ in range(2):
        position = await connection.fetchval("SELECT pgchannels.position('room')")
        if has_crashed:
            await connection.execute("SELECT pgchannels.publish('room', '0')")
            await lose_the_log(connection)
        await connection.execute("SELECT pgchannels.publish('room', '1')")
        received: list[Any] = []
        async with MessageLayer(database_url) as layer:
            await layer.publish("room", 2)
            async with layer.subscribe("room", since=position, on_gap=received.append) as subscription:
                received += [(await within(anext(subscription))).payload for _ in range(2)]
        assert received == [Gap(GapReason.CRASH, None), 1, 2][not has_crashed :]
        await lose_the_log(connection)


async def test_position_in_sql_is_that_of_the_layer_with_the_prefix(database_url: str, connection: Connection) -> None:
    async with MessageLayer(database_url, prefix="other") as layer:
        await layer.publish("room", 1)
        position = str(await layer.position("room"))
        assert await connection.fetchval("SELECT pgchannels.position('room', 'other')") == position
        assert await connection.fetchval("SELECT pgchannels.position('room', prefix => 'other')") == position
        elsewhere = await connection.fetchval("SELECT pgchannels.position('room')")
        assert Position.parse(elsewhere) < Position.parse(position)


@pytest.mark.parametrize(
    "arguments", ["''", "NULL", "'a b'", "repeat('x', 100)", "'room', ''", "'room', 'a:b'", "'room', NULL"]
)
async def test_impossible_name_is_an_error_of_sql_with_a_hint(connection: Connection, arguments: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=r"is no (topic|prefix)") as refused:
        await connection.fetchval(f"SELECT pgchannels.position({arguments})")
    assert "ASCII letters" in (refused.value.hint or "")


async def test_position_of_an_impossible_topic_or_a_closed_layer_is_refused(database_url: str) -> None:
    layer = MessageLayer(database_url)
    with pytest.raises(InvalidName):
        await layer.position("a b")
    with pytest.raises(LayerClosed):
        await layer.position("room")


async def test_message_under_way_is_after_the_position(
    database_url: str, connection: Connection, layer: MessageLayer
) -> None:
    await layer.publish("room", 1)
    other = await asyncpg.connect(database_url)
    await other.execute("BEGIN")
    await publish_in(other, "news", 1)  # under way, with a smaller id than the next
    later = await layer.publish("room", 2)
    positions = await connection.fetch("SELECT pgchannels.position(topic) FROM unnest('{news,room}'::text[]) AS topic")
    news, room = [Position.parse(position) for (position,) in positions]
    await other.execute("COMMIT")
    await other.close()
    assert news < later == room
    assert len(await layer.history("news", since=news)) == 1


async def test_statement_shows_one_moment(owner_url: str, connection: Connection, layer: MessageLayer) -> None:
    await layer.publish("room", "seen")
    await connection.execute("SELECT pg_advisory_lock(1)")
    reader = await asyncpg.connect(owner_url)
    query = f"SELECT ARRAY({COUNT}), pg_advisory_lock(1), pgchannels.position('room')"
    reading = asyncio.create_task(reader.fetchrow(query, topic_address("asgi", "room")))
    await until(lambda: connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    await layer.publish("room", "committed later")
    await connection.execute("SELECT pg_advisory_unlock(1)")
    row = await within(reading)
    await reader.close()
    assert row is not None
    await require_rest(layer, connection, Snapshot({"room": row[0]}, {"room": row[2]}))


STEPS: Final = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(TOPICS[:3]), st.integers(1, 3)),
    st.tuples(st.sampled_from(["begin", "begin", "commit", "roll back"]), st.sampled_from(TOPICS[:3])),
    st.tuples(st.sampled_from(["rotate", "snapshot", "snapshot"])),
)


def test_what_follows_a_position_is_what_its_snapshot_lacks(database_url: str, owner_url: str) -> None:
    @given(steps=st.lists(STEPS, max_size=30))
    @settings(max_examples=60, suppress_health_check=[HealthCheck.differing_executors])
    @example(steps=[("begin", "room"), ("publish", "news", 1), ("snapshot",), ("commit", "room"), ("snapshot",)])
    @example(steps=[("publish", "room", 1), ("rotate",), ("begin", "news"), ("publish", "room", 2), ("snapshot",)])
    def require_rests(steps: list[tuple[Any, ...]]) -> None:
        runner.run(require_rests_after(steps))

    async def require_rests_after(steps: list[tuple[Any, ...]]) -> None:
        await connection.execute("TRUNCATE pgchannels.message, pgchannels.filled_slot")
        open_in = {topic: sender.transaction() for topic, sender in senders.items()}
        is_open = dict.fromkeys(open_in, False)
        snapshots = []
        for step, *values in steps:
            match step, values:
                case "publish", [topic, count] if not is_open[topic]:
                    await publish_in(connection, topic, count)
                case "begin", [topic] if not is_open[topic]:
                    await open_in[topic].start()
                    await publish_in(senders[topic], topic, 2)
                    is_open[topic] = True
                case "commit" | "roll back", [topic] if is_open[topic]:
                    await (open_in[topic].commit if step == "commit" else open_in[topic].rollback)()
                    open_in[topic], is_open[topic] = senders[topic].transaction(), False
                case "rotate", []:
                    await rotate_early(connection)
                case "snapshot", []:
                    snapshots.append(await take_snapshot(reader, TOPICS, no_pause))
        for topic, was_open in is_open.items():
            if was_open:
                await open_in[topic].commit()
        for snapshot in snapshots:
            await require_rest(layer, connection, snapshot)

    with asyncio.Runner() as runner:
        layer = MessageLayer(database_url, heartbeat=600, expiry=3600)
        connection: Connection = runner.run(asyncpg.connect(owner_url))
        reader: Connection = runner.run(asyncpg.connect(owner_url))
        senders: dict[str, Connection] = {topic: runner.run(asyncpg.connect(database_url)) for topic in TOPICS[:3]}
        runner.run(layer.open())
        require_rests()
        runner.run(layer.close())
        for one in (connection, reader, *senders.values()):
            runner.run(one.close())


async def test_snapshots_amid_publishers_have_no_hole_and_nothing_twice(
    database_url: str, layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    publishers, rounds, chance = 8, 60, random.Random(5)

    async def publish(number: int) -> None:
        sender = await asyncpg.connect(database_url)
        for _ in range(rounds):
            topic = chance.choice(TOPICS[:3])
            if number % 2:
                async with sender.transaction():
                    await publish_in(sender, topic, chance.randint(1, 5))
                    await sender.fetchval("SELECT pg_sleep($1)", chance.random() / 100)
            else:
                await chance.choice((layer, other_layer)).publish_many([(topic, number)] * chance.randint(1, 5))
        await sender.close()

    async def watch() -> list[Snapshot]:
        reader, snapshots = await asyncpg.connect(database_url), list[Snapshot]()
        while not publishing.done():
            snapshots.append(await take_snapshot(reader, TOPICS, lambda: asyncio.sleep(chance.random() / 50)))
        await reader.close()
        return snapshots

    publishing = asyncio.gather(*map(publish, range(publishers)))
    watching = asyncio.gather(watch(), watch())
    for _ in range(2):
        await asyncio.sleep(0)
        await rotate_early(connection)
    await within(publishing)
    snapshots = [snapshot for found in await within(watching) for snapshot in found]
    assert len(snapshots) > 10
    for snapshot in snapshots:
        await require_rest(layer, connection, snapshot)
