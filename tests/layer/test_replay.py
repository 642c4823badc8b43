"""Messages are read again from any point: a position, a time, some time ago."""

import asyncio
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgchannels import Gap, GapReason, InvalidPosition, MessageLayer, Position
from tests.support.log import lose_the_log, rotate
from tests.support.roads import node_of
from tests.support.waiting import within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

START: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)
EAST: Final = timezone(timedelta(hours=14))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


async def publish_at(layer: MessageLayer, connection: Connection, topic: str, times: list[datetime]) -> list[Position]:
    """Publish the numbers from 0, as if the database's clock had shown these times."""
    positions = [await layer.publish(topic, number) for number in range(len(times))]
    query = "UPDATE pgchannels.message SET published_at = $1 WHERE id = $2"
    await connection.executemany(query, [(time, one.to_id()) for time, one in zip(times, positions, strict=True)])
    return positions


async def let_grow_old(connection: Connection, by: timedelta) -> None:
    """Make everything happen so much earlier; the log rotates if that is due."""
    await connection.execute(
        f"""
        UPDATE pgchannels.message SET published_at = published_at - interval '{by.total_seconds()} s';
        UPDATE pgchannels.log_state SET rotated_at = rotated_at - interval '{by.total_seconds()} s',
            gone_at = gone_at - interval '{by.total_seconds()} s',
            kept_gone_at = kept_gone_at - interval '{by.total_seconds()} s';
        UPDATE pgchannels.kept_slot SET began_at = began_at - interval '{by.total_seconds()} s',
            filled_at = filled_at - interval '{by.total_seconds()} s';
        UPDATE pgchannels.filled_slot SET filled_at = filled_at - interval '{by.total_seconds()} s'
        """
    )
    await rotate(connection)


async def payloads(layer: MessageLayer, topic: str = "room", **points: Any) -> list[Any]:
    return [message.payload for message in await layer.history(topic, limit=10_000, **points)]


async def replayed(layer: MessageLayer, *topics: str, since: Any) -> list[Any]:
    """The gaps and payloads that a subscription receives before a message that is published now."""
    received: list[Any] = []
    async with layer.subscribe(*topics, since=since, on_gap=received.append) as subscription:
        end = await layer.publish(topics[0], "last")
        while (message := await within(anext(subscription))).position != end:
            received.append(message.payload)
    return received


async def test_history_lies_between_two_times(layer: MessageLayer, connection: Connection) -> None:
    await publish_at(layer, connection, "room", [START + seconds(number) for number in range(10)])
    assert await payloads(layer, since=START + seconds(3)) == [3, 4, 5, 6, 7, 8, 9]
    assert await payloads(layer, until=START + seconds(3)) == [0, 1, 2]
    assert await payloads(layer, since=START + seconds(2.5), until=START + seconds(4.5)) == [3, 4]
    assert await payloads(layer, since=START + seconds(4), until=START + seconds(3)) == []
    assert await payloads(layer, since=START.astimezone(EAST) + seconds(8)) == [8, 9]


async def test_history_lies_between_two_positions(layer: MessageLayer) -> None:
    positions = await layer.publish_many([("room", number) for number in range(10)])
    assert await payloads(layer, since=positions[2], until=str(positions[5])) == [3, 4, 5]
    assert await payloads(layer, until=positions[1]) == [0, 1]
    assert await payloads(layer, since=positions[5], until=positions[2]) == []
    assert await payloads(layer, until=Position(0, 1)) == []
    latest = await layer.history("room", until=positions[5], limit=2)
    assert [message.payload for message in latest] == [4, 5]


async def test_timedelta_is_this_long_ago(layer: MessageLayer, connection: Connection) -> None:
    await layer.publish("room", "old")
    await let_grow_old(connection, seconds(20))
    await layer.publish("room", "new")
    assert await payloads(layer, since=seconds(10)) == ["new"]
    assert await payloads(layer, since=timedelta.max) == ["old", "new"]
    assert await payloads(layer, until=seconds(10)) == ["old"]
    assert await replayed(layer, "room", since=seconds(10)) == ["new"]


async def test_subscription_since_a_time_has_all_of_each_topic_from_then_on(
    layer: MessageLayer, connection: Connection
) -> None:
    await publish_at(layer, connection, "one", [START + seconds(number) for number in range(4)])
    await publish_at(layer, connection, "two", [START + seconds(number - 1.5) for number in range(4)])
    received = await replayed(layer, "one", "two", "unused", since=START + seconds(1))
    assert received == [1, 2, 3, 3]


async def test_subscription_since_a_time_to_come_begins_now(layer: MessageLayer) -> None:
    await layer.publish("room", "before")
    assert await replayed(layer, "room", since=datetime.now(UTC) + timedelta(days=1)) == []
    assert await replayed(layer, "room", since=datetime.max.replace(tzinfo=EAST)) == []
    assert await payloads(layer, until=datetime.now(UTC) + timedelta(days=1)) == ["before", "last", "last"]


async def test_subscription_since_a_time_takes_thousands_of_topics(layer: MessageLayer) -> None:
    topics = [f"room-{number}" for number in range(450)]
    await layer.publish_many([(topic, topic) for topic in topics])
    assert await replayed(layer, *topics, since=timedelta(hours=1)) == topics


@pytest.mark.parametrize(
    "since", [datetime.min.replace(tzinfo=EAST), datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=99_999)]
)
async def test_nothing_was_lost_before_the_first_log_began(layer: MessageLayer, since: Any) -> None:
    await layer.publish("room", 1)
    assert await replayed(layer, "room", "unused", since=since) == [1]


async def test_time_before_a_crash_is_a_gap_and_a_time_after_it_is_none(
    database_url: str, connection: Connection
) -> None:
    async with MessageLayer(database_url) as layer:
        await layer.publish("room", "gone")
    await lose_the_log(connection)
    async with MessageLayer(database_url) as layer:
        await connection.execute(
            "UPDATE pgchannels.log_state SET (gone_at, lost_at) = (now() - interval '10 s', now() - interval '10 s')"
        )
        assert await replayed(layer, "room", since=seconds(30)) == [Gap(GapReason.CRASH, None)]
        assert await replayed(layer, "silent", since=seconds(5)) == []
        assert await replayed(layer, "room", since=seconds(5)) == ["last"]


async def test_time_from_which_messages_have_left_the_log_is_a_gap(layer: MessageLayer, connection: Connection) -> None:
    await layer.publish("room", "lost")
    for number in range(3):
        await let_grow_old(connection, seconds(40))
        await layer.publish("room", number)
    await let_grow_old(connection, seconds(5))
    assert await payloads(layer) == [0, 1, 2]  # the slot that left the log was filled 85 seconds ago
    assert await replayed(layer, "room", since=seconds(95)) == [Gap(GapReason.EXPIRED, None), 0, 1, 2]
    assert await replayed(layer, "silent", since=seconds(95)) == []  # it lost nothing
    assert await replayed(layer, "quiet", since=seconds(75)) == []
    assert await replayed(layer, "room", since=seconds(75)) == [1, 2, "last"]


async def test_slot_that_is_emptied_late_hides_nothing(
    owner_url: str, layer: MessageLayer, connection: Connection
) -> None:
    dump = await asyncpg.connect(owner_url)
    async with dump.transaction():
        await dump.execute("LOCK TABLE pgchannels.message_0 IN ACCESS SHARE MODE")
        await layer.publish("quiet", 0)
        for number in range(4):
            await layer.publish("room", number)
            await let_grow_old(connection, seconds(40))
        # 0 is in the locked slot, the slot of 1 was filled 80 seconds ago and is empty.
        assert await payloads(layer) == [0, 2, 3]
        assert await replayed(layer, "room", since=seconds(70)) == [3]
        assert await replayed(layer, "quiet", since=seconds(70)) == []
        assert await replayed(layer, "room", since=seconds(130)) == [Gap(GapReason.EXPIRED, None), 2, 3, "last"]
        await connection.execute("UPDATE pgchannels.message SET published_at = now() WHERE slot = 0")
        late = await replayed(layer, "room", since=seconds(1000))
        assert late == [Gap(GapReason.EXPIRED, None), 0, 2, 3, "last", "last"]
        assert await replayed(layer, "room", since=seconds(30)) == [Gap(GapReason.EXPIRED, None), *late[1:], "last"]
    await dump.close()


async def test_log_that_rotates_without_messages_loses_none(layer: MessageLayer, connection: Connection) -> None:
    since = await layer.publish("room", "seen")
    for _ in range(8):
        await let_grow_old(connection, seconds(30))
    assert await payloads(layer) == []
    assert await replayed(layer, "room", since=seconds(200)) == []
    assert await replayed(layer, "silent", since=since) == []


async def test_time_that_the_clock_showed_twice_means_the_first(layer: MessageLayer, connection: Connection) -> None:
    forth = [START + seconds(number) for number in range(10)]
    again = [START + seconds(number) for number in range(5, 15)]
    await publish_at(layer, connection, "room", forth + again)
    for number in range(10):
        assert (await payloads(layer, since=START + seconds(number)))[0] == number
    assert await payloads(layer, since=START + seconds(12)) == [17, 18, 19]
    assert await payloads(layer, until=START + seconds(7)) == [0, 1, 2, 3, 4, 5, 6]


async def test_log_that_has_just_vanished_begins_again(layer: MessageLayer, connection: Connection) -> None:
    await layer.publish("room", "gone")
    await lose_the_log(connection)
    assert await payloads(layer, since=seconds(10)) == []


@pytest.mark.parametrize("since", [datetime(2026, 1, 1), datetime.min, datetime.now()])
async def test_time_without_a_zone_is_refused_with_what_to_do(layer: MessageLayer, since: datetime) -> None:
    with pytest.raises(InvalidPosition, match=r"since=datetime.datetime\(.*\) has no time zone: give it one"):
        layer.subscribe("room", since=since)
    with pytest.raises(InvalidPosition, match=r"until=.* has no time zone"):
        await layer.history("room", until=since)


@pytest.mark.parametrize("since", [timedelta(), timedelta(seconds=-1), timedelta.min])
async def test_duration_that_is_not_positive_is_refused(layer: MessageLayer, since: timedelta) -> None:
    with pytest.raises(InvalidPosition, match=r"since=.* is not positive: a timedelta says how long ago"):
        layer.subscribe("room", since=since)


@pytest.mark.parametrize("since", [date(2026, 1, 1), 5, 1.5, b"1-0", (1, 0), "yesterday", "2026-01-01"])
async def test_what_is_no_point_is_refused(layer: MessageLayer, since: Any) -> None:
    with pytest.raises(InvalidPosition, match=r"since=.*neither a Position"):
        await layer.history("room", since=since)


def test_time_splits_a_topic_exactly(database_url: str, owner_url: str) -> None:
    moments = st.lists(st.integers(0, 40), max_size=40).map(sorted)

    @given(moments=moments, one=st.integers(-1, 41), other=st.integers(-1, 41), slots=st.integers(1, 3))
    @settings(max_examples=100, suppress_health_check=[HealthCheck.differing_executors])
    @example(moments=[], one=0, other=5, slots=1)
    def require_exact(moments: list[int], one: int, other: int, slots: int) -> None:
        runner.run(require_split(moments, one, other, slots))

    async def require_split(moments: list[int], one: int, other: int, slots: int) -> None:
        topic = f"room-{next(numbers)}"
        await publish_at(layer, connection, topic, [START + seconds(moment) for moment in moments])
        await connection.execute("UPDATE pgchannels.message SET slot = id / 512 % $1", slots)
        begin, end = START + seconds(one), START + seconds(other)
        assert await payloads(layer, topic, since=begin) == [n for n, at in enumerate(moments) if at >= one]
        assert await payloads(layer, topic, until=end) == [n for n, at in enumerate(moments) if at < other]
        assert await payloads(layer, topic, since=begin, until=end) == [
            n for n, at in enumerate(moments) if one <= at < other
        ]

    numbers = iter(range(1_000))
    with asyncio.Runner() as runner:
        layer = MessageLayer(database_url, heartbeat=600, expiry=3600)
        connection: Connection = runner.run(asyncpg.connect(owner_url))
        runner.run(layer.open())
        require_exact()
        runner.run(layer.close())
        runner.run(connection.close())


async def test_chosen_retention_is_how_far_a_replay_reaches_past_the_expiry(
    database_url: str, connection: Connection
) -> None:
    await connection.execute("UPDATE pgchannels.log SET chosen = '1 h', retention = '1 h'")
    async with MessageLayer(database_url, expiry=1) as layer:
        begin = await layer.publish("room", "old")
        await layer.publish("room", "short", expiry=0.5)
        await layer.send("jobs", "expired")
        await connection.execute(
            "UPDATE pgchannels.message SET published_at = published_at - interval '59 min',"
            " expires_at = expires_at - interval '59 min'"
        )
        await layer.publish("room", "new")
        assert await payloads(layer) == ["old", "new"]
        assert await payloads(layer, since=seconds(3600)) == ["old", "new"]
        assert [message.payload for message in await layer.history("room", limit=2)] == ["old", "new"]
        assert await replayed(layer, "room", since=Position(begin.epoch, begin.offset - 1)) == [
            "old",
            Gap(GapReason.EXPIRED, 1),
            "new",
        ]
        await connection.execute("UPDATE pgchannels.message SET published_at = published_at - interval '2 min'")
        assert await payloads(layer) == ["new", "last"]


async def test_replay_reaches_as_far_for_every_layer_whatever_its_expiry(
    database_url: str, connection: Connection
) -> None:
    await connection.execute("UPDATE pgchannels.log SET chosen = '1 h', retention = '1 h'")
    async with MessageLayer(database_url, expiry=2) as brief:
        begin = await brief.publish("room", "direct")
        async with connection.transaction():
            await brief.publish("room", "in a transaction", connection=connection)
            await brief.publish("room", "short", expiry=5, connection=connection)
        await connection.execute("SELECT pgchannels.publish('room', '\"of SQL\"')")
        await connection.execute("SELECT pgchannels.publish('room', '\"short\"', expiry => '5 s')")
        await connection.execute("SELECT pgchannels.publish_many('{room}', '{\"\\\"many\\\"\"}')")
        await brief.publish("room", "short", expiry=5)
        await connection.execute(
            "UPDATE pgchannels.message SET published_at = published_at - interval '20 min',"
            " expires_at = expires_at - interval '20 min'"
        )
        found = ["direct", "in a transaction", "of SQL", "many"]
        lost = Gap(GapReason.EXPIRED, 1)
        async with MessageLayer(database_url) as usual, MessageLayer(database_url, expiry=600) as lasting:
            for layer in (brief, usual, lasting):
                assert await payloads(layer) == await payloads(layer, since=seconds(3000)) == found
            before = Position(begin.epoch, begin.offset - 1)
            in_full = [*found[:2], lost, found[2], lost, found[3], lost]
            for layer in (brief, usual, lasting):
                assert (await replayed(layer, "room", since=before))[: len(in_full)] == in_full


async def test_what_a_connection_missed_still_expires(layer: MessageLayer, connection: Connection) -> None:
    await connection.execute("UPDATE pgchannels.log SET chosen = '1 h', retention = '1 h'")
    first = await layer.publish("room", "old")
    await connection.execute("UPDATE pgchannels.message SET expires_at = published_at")
    page = await node_of(layer).receiver.log.page({"topic:asgi:room": first.to_id() - 1})
    assert [arrival.envelope for arrival in page.arrivals] == [None]
