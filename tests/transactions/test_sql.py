"""The functions for SQL: what they send, and how they refuse."""

import json
from decimal import Decimal
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgchannels import GapReason, MessageLayer, MessagesLost
from pgchannels.django import PostgresChannelLayer
from tests.support.roads import node_of
from tests.support.waiting import within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# What JSON and Python say in the same words.
json_values: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
            | st.sampled_from(["$uuid", "$bytes", "$set", "$$date"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


async def publish(connection: Connection, payload: Any, **options: Any) -> None:
    """Publish a payload to `room` by SQL."""
    given = "".join(f", {name} => ${number}" for number, name in enumerate(options, start=2))
    await connection.execute("SET timezone = 'Asia/Kathmandu'")
    await connection.fetch(f"SELECT pgchannels.publish('room', $1::text::jsonb{given})", payload, *options.values())


@given(value=json_values)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_payload_from_sql_arrives_as_plain_json(layer: MessageLayer, connection: Connection, value: Any) -> None:
    async with layer.subscribe("room") as subscription:
        stored = await connection.fetchval("SELECT $1::text::jsonb::text", dumped(value))
        await publish(connection, dumped(value))
        assert (await within(anext(subscription))).payload == loaded(stored)


def dumped(value: Any) -> str:

    return json.dumps(value)


def loaded(text: str) -> Any:

    return json.loads(text)


async def test_sql_passes_headers_a_key_and_an_expiry(layer: MessageLayer, connection: Connection) -> None:
    async with layer.subscribe("room") as subscription:
        for number in range(2):
            await publish(connection, str(number), key="order-7", headers='{"traceparent": "00-ab", "n": -5}')
        await connection.execute("SELECT pgchannels.publish('room', '\"last\"', expiry => '5 s')")
        first, last = [await within(anext(subscription)) for _ in range(2)]
    assert (first.payload, first.headers) == (0, {"traceparent": "00-ab", "n": -5})
    assert (last.payload, last.headers) == ("last", {})
    lasts = await connection.fetchval("SELECT max(expires_at - published_at) FROM pgchannels.message WHERE key IS NULL")
    assert lasts.total_seconds() == 5


@pytest.mark.parametrize("number", ["1.0", "10.00", "1e3", "-0.0", "18446744073709551615.0"])
async def test_header_of_sql_is_an_integer_however_it_is_written(
    layer: MessageLayer, connection: Connection, number: str
) -> None:
    async with layer.subscribe("room") as subscription:
        await publish(connection, "1", headers=f'{{"number": {number}}}')
        headers = (await within(anext(subscription))).headers
    assert headers == {"number": int(Decimal(number))}
    assert type(headers["number"]) is int


async def test_sql_publishes_many_rows_in_their_order(layer: MessageLayer, connection: Connection) -> None:
    async with layer.subscribe("a", "b", capacity=2000) as subscription:
        await connection.execute(
            """
            SELECT pgchannels.publish_many(array_agg(topic ORDER BY n), array_agg(to_jsonb(n) ORDER BY n))
            FROM (SELECT n, CASE n % 2 WHEN 0 THEN 'a' ELSE 'b' END AS topic FROM generate_series(0, 1199) AS n) AS sent
            """
        )
        assert [(await within(anext(subscription))).payload for _ in range(1200)] == list(range(1200))
        await connection.execute("SELECT pgchannels.publish_many('{}', '{}')")


async def test_sql_sends_to_a_channel_and_to_a_queue(layer: MessageLayer, connection: Connection) -> None:
    channel = await layer.new_channel("some.kind")
    await connection.execute(
        "SELECT pgchannels.send($1::text, '{\"n\": 1}'), pgchannels.send('jobs', '2')".replace("$1", f"'{channel}'")
    )
    assert await within(layer.receive(channel)) == {"n": 1}
    assert await within(layer.receive("jobs")) == 2


async def test_sql_reaches_a_consumers_group_of_its_prefix_alone(database_url: str, connection: Connection) -> None:
    layer, other = PostgresChannelLayer(database_url), PostgresChannelLayer(database_url, prefix="other")
    channels = [(one, await one.new_channel()) for one in (layer, other)]
    for one, channel in channels:
        await one.group_add("room", channel)
    await publish(connection, '{"type": "theirs"}', prefix="other")
    await publish(connection, '{"type": "ours"}')
    assert [(await within(one.receive(channel)))["type"] for one, channel in channels] == ["ours", "theirs"]
    for one, _ in channels:
        await one.close()


@pytest.mark.parametrize(
    ("call", "says", "hint"),
    [
        ("publish('a room', '1')", "'a room' is no topic", "1 to 99 ASCII letters"),
        ("publish(NULL, '1')", "NULL is no topic", "1 to 99"),
        ("publish(repeat('a', 100), '1')", "is no topic", "1 to 99"),
        (r"publish(E'a\nb', '1')", "is no topic", "1 to 99"),
        (r"publish(E'a\n', '1')", "is no topic", "1 to 99"),
        ("publish('a', NULL)", "the payload is NULL", "'null'::jsonb"),
        ("publish('a', '1', prefix => 'a:b')", "'a:b' is no prefix", "option of the layers"),
        ("publish('a', '1', key => '')", "a key has 1 to 200 characters, not 0", "'order-7'"),
        ("publish('a', '1', key => repeat('a', 201))", "a key has 1 to 200 characters, not 201", "a hash of that"),
        ("publish('a', '1', expiry => '0')", "the expiry of 00:00:00 is impossible", "at most 00:01:00"),
        ("publish('a', '1', expiry => '1 day')", "the expiry of 1 day is impossible", "at most 00:01:00"),
        ("publish('a', '1', headers => '[]')", "a JSON object of texts and integers", "traceparent"),
        ("publish('a', '1', headers => '{\"a\": 1.5}')", "a JSON object of texts and integers", "traceparent"),
        ("publish('a', '1', headers => '{\"a\": null}')", "a JSON object of texts and integers", "traceparent"),
        ("publish('a', '1', headers => jsonb_build_object('a', repeat('a', 5000)))", "the headers take", "the payload"),
        (
            "publish('a', '1', headers => '{\"a\": 18446744073709551616}')",
            "texts and integers of 64 bits",
            "traceparent",
        ),
        ("publish('a', (repeat('[', 201) || repeat(']', 201))::jsonb)", "nested deeper than 200", "as a text"),
        ("publish_many('{a,b}', '{1}')", "2 topics and 1 payloads", "same length"),
        ("publish_many(NULL, '{1}')", "0 topics and 1 payloads", "same length"),
        ("publish_many('{a,NULL}', '{1,2}')", "NULL is no topic", "1 to 99"),
        ("send('a!b!c', '1')", "'a!b!c' is no channel", "at most one '!'"),
        ("send('a', '1', capacity => 0)", "capacity of 0 is impossible", "may wait there"),
        ("send('a', '1', capacity => NULL)", "capacity of NULL is impossible", "may wait there"),
        ("send('a', '1', expiry => '11 years')", "the expiry of 11 years is impossible", "3650 days"),
        ("send('a!b', '1', expiry => '1 day')", "the expiry of 1 day is impossible", "at most 00:01:00"),
    ],
)
async def test_bad_argument_is_an_error_that_says_what_to_do(
    connection: Connection, layer: MessageLayer, call: str, says: str, hint: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await connection.execute(f"SELECT pgchannels.{call}")
    assert says in str(refused.value.args[0])
    assert hint in str(refused.value.hint)


async def test_largest_and_deepest_payload_are_taken(layer: MessageLayer, connection: Connection) -> None:
    async with layer.subscribe("room") as subscription:
        await connection.execute("SELECT pgchannels.publish('room', (repeat('[', 200) || repeat(']', 200))::jsonb)")
        await connection.execute("SELECT pgchannels.publish('room', to_jsonb(repeat('a', 67108864 - 3)))")
        deepest = (await within(anext(subscription))).payload
        depth = 0
        while isinstance(deepest, list):
            deepest, depth = (deepest or [None])[0], depth + 1
        assert depth == 200
        assert len((await within(anext(subscription))).payload) == 67108864 - 3
        with pytest.raises(asyncpg.PostgresError, match="67108864 are the most"):
            await connection.execute("SELECT pgchannels.publish('room', to_jsonb(repeat('a', 67108864 - 2)))")


async def test_layer_with_keys_skips_what_sql_sends_except_where_it_says_so(
    database_url: str, connection: Connection
) -> None:
    keys = [b"a key of enough bytes"]
    async with MessageLayer(database_url, symmetric_encryption_keys=keys, unsealed_topics=["open.*"]) as layer:
        async with layer.subscribe("room", "open.orders") as subscription:
            await publish(connection, "1")
            await connection.execute("SELECT pgchannels.publish('open.orders', '2')")
            await layer.publish("open.orders", 3)
            with pytest.raises(MessagesLost) as lost:
                await within(anext(subscription))
            assert (lost.value.gap.reason, lost.value.gap.count) == (GapReason.UNREADABLE, 1)
            assert [(await within(anext(subscription))).payload for _ in range(2)] == [2, 3]
        assert node_of(layer).receiver.payloads.unreadable == 1
        await connection.execute("SELECT pgchannels.send('jobs', '4')")
        with pytest.raises(MessagesLost):
            await within(layer.receive("jobs"))


async def test_queue_in_a_topic_gets_what_sql_sends_where_the_layer_says_so(
    database_url: str, connection: Connection
) -> None:
    keys = [b"a key of enough bytes"]
    layer = PostgresChannelLayer(database_url, symmetric_encryption_keys=keys, unsealed_topics=["open"])
    await layer.group_add("open", "jobs")
    await connection.execute("SELECT pgchannels.publish('open', '{\"type\": \"a\"}')")
    assert await within(layer.receive("jobs")) == {"type": "a"}
    await layer.close()
