"""Keys, headers, an expiry of one's own, and a channel that is left out."""

import asyncio
from secrets import token_hex
from typing import Any, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgchannels import ChannelFull, Gap, MessageLayer, MessageTooLarge
from pgchannels.django import PostgresChannelLayer
from pgchannels.messages import Header
from tests.support.log import let_pass, rotate
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
KEYS = [b"a key of enough bytes"]


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([None, "a", "b"])), max_size=12))
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_message_with_a_key_is_delivered_once_and_every_retry_gets_its_position(
    layer: MessageLayer, connection: Connection, calls: list[tuple[int, str | None]]
) -> None:
    topics = [f"topic-{number}-{token_hex(4)}" for number in range(2)]
    async with layer.subscribe(*topics) as subscription:
        sends = [layer.publish(topics[topic], n, key=key) for n, (topic, key) in enumerate(calls)]
        positions = await asyncio.gather(*sends)  # in as few batches as fit
        await layer.publish_many([(topic, "last") for topic in topics])
        came: list[Any] = []
        while [payload for _, payload, _ in came].count("last") < 2:
            message = await within(anext(subscription))
            came.append((message.topic, message.payload, message.position))
    first: dict[Any, Any] = {}
    due = []
    for number, ((topic, key), position) in enumerate(zip(calls, positions, strict=True)):
        if key is None or (topic, key) not in first:
            due.append((topics[topic], number, position))
        assert key is None or first.setdefault((topic, key), position) == position
    assert sorted(one for one in came if one[1] != "last") == sorted(due)


async def test_key_is_remembered_for_the_retention_also_past_the_expiry(
    database_url: str, connection: Connection
) -> None:
    async with MessageLayer(database_url) as layer:
        first = await layer.publish("room", 1, key="order-7", expiry=0.001)
        await let_pass(connection, 30)
        assert await rotate(connection)
        assert await layer.publish("room", 2, key="order-7") == first
        assert await layer.publish("other", 3, key="order-7") != first
        await let_pass(connection, 60)
        assert await rotate(connection)
        assert await layer.publish("room", 4, key="order-7") > first


async def test_queue_of_a_group_gets_no_copy_of_a_retry(layer: MessageLayer, database_url: str) -> None:
    channels = PostgresChannelLayer(database_url)
    await channels.group_add("room", "jobs")
    for number in range(3):
        await layer.publish("room", number, key="order-7")
    await layer.publish_many([("room", "last")])
    assert [await within(layer.receive("jobs")) for _ in range(2)] == [0, "last"]
    await channels.close()


@pytest.mark.parametrize("keys", [(), KEYS], ids=["plain", "sealed"])
async def test_headers_arrive_with_the_message_from_wherever_it_is_read(database_url: str, keys: list[bytes]) -> None:
    headers: dict[str, Header] = {"traceparent": "00-ab-cd-01", "raw": b"\0\xff", "number": -(2**63), "": ""}
    async with MessageLayer(database_url, symmetric_encryption_keys=keys) as layer:
        async with layer.subscribe("room") as subscription:
            position = await layer.publish("room", {"a": 1}, headers=headers)
            await layer.publish("room", "x" * 10_000, headers={"large": 1})
            await layer.publish("room", "none")
            messages = [await within(anext(subscription)) for _ in range(3)]
        assert [message.headers for message in messages] == [headers, {"large": 1}, {}]
        assert [message.headers for message in await layer.history("room")] == [headers, {"large": 1}, {}]
        async with layer.subscribe("room", since=position) as subscription:
            assert (await within(anext(subscription))).headers == {"large": 1}
        await layer.send("jobs", 1)
        assert await within(layer.receive("jobs")) == 1


async def test_headers_of_more_than_4096_bytes_are_refused(layer: MessageLayer) -> None:
    await layer.publish("room", 1, headers={"a": "x" * 4080})
    with pytest.raises(MessageTooLarge, match=r"the headers take 4,1\d\d bytes, 4,096 are the most"):
        await layer.publish("room", 1, headers={"a": "x" * 4100})


async def test_message_with_an_expiry_of_its_own_expires_while_others_wait(
    layer: MessageLayer, connection: Connection
) -> None:
    gaps: list[Gap] = []
    async with layer.subscribe("room", on_gap=gaps.append) as subscription:
        await layer.publish("room", "short", expiry=0.05)
        await layer.publish("room", "layer's own")
        await layer.publish("room", "longer", expiry=19)
        await aged(layer, connection)
        assert [(await within(anext(subscription))).payload for _ in range(2)] == ["layer's own", "longer"]
    assert [gap.count for gap in gaps] == [1]


async def aged(layer: MessageLayer, connection: Connection) -> None:
    """Return when the first message has expired, by the node's clock."""
    query = "SELECT min(extract(epoch FROM expires_at))::float8 FROM pgchannels.message"
    expires_at: float = await connection.fetchval(query)
    await until(lambda: asyncio.sleep(0, node_of(layer)._connections.database_time() > expires_at))


async def test_expiry_beyond_what_the_log_keeps_is_refused(layer: MessageLayer) -> None:
    with pytest.raises(Exception, match=r"expiry must be a number of seconds from 0.001 to 60, not 61"):
        await layer.publish("room", 1, expiry=61)


@pytest.mark.parametrize("keys", [(), KEYS], ids=["plain", "sealed"])
async def test_group_message_leaves_out_one_channel_wherever_it_is(database_url: str, keys: list[bytes]) -> None:
    here = PostgresChannelLayer(database_url, symmetric_encryption_keys=keys)
    there = PostgresChannelLayer(database_url, symmetric_encryption_keys=keys)
    mine, other, far = await here.new_channel(), await here.new_channel(), await there.new_channel()
    members = {mine: here, other: here, far: there, "jobs": there}
    for name, layer in members.items():
        await layer.group_add("room", name)
    for number, left_out in enumerate([*members, "nobody", None]):
        await here.group_send("room", {"type": "x", "n": number, "large": "x" * 9000 * (number % 2)}, exclude=left_out)
    for name, layer in members.items():
        expected = [n for n, left_out in enumerate([*members, "nobody", None]) if left_out != name]
        assert [(await within(layer.receive(name)))["n"] for _ in expected] == expected
    await here.close()
    await there.close()


async def test_message_that_leaves_out_a_channel_takes_no_place_in_it(database_url: str) -> None:
    layer = PostgresChannelLayer(database_url, capacity=1)
    mine, other = await layer.new_channel(), await layer.new_channel()
    for name in (mine, other):
        await layer.group_add("room", name)
    await layer.group_send("room", {"type": "x"}, exclude=mine)
    assert await within(layer.receive(other)) == {"type": "x"}
    await layer.send(mine, {"type": "y"})
    with pytest.raises(ChannelFull):
        await layer.send(mine, {"type": "z"})
    assert await within(layer.receive(mine)) == {"type": "y"}
    await layer.close()
