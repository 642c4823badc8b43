"""Channels that other processes add to groups get what is sent to these then, whatever their node does meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import asyncpg
import pytest

from pgchannels.django import PostgresChannelLayer
from tests.faults.numbered import numbered, numbers
from tests.support.gates import Gate
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import until, within


@pytest.fixture
async def receiver(proxy: Proxy) -> AsyncIterator[PostgresChannelLayer]:
    """The layer whose channels are added, behind the proxy."""
    layer = PostgresChannelLayer(proxy.url, on_gap="gap", heartbeat=3600)
    yield layer
    proxy.restore()
    await layer.close()


@pytest.fixture
async def sender(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """A layer of another process."""
    layer = PostgresChannelLayer(database_url)
    yield layer
    await layer.close()


async def hosts(connection: "asyncpg.Connection[asyncpg.Record]", group: str) -> bool:
    """Whether the database tells some node of messages to a group."""
    query = "SELECT EXISTS (SELECT FROM pgchannels.subscription WHERE address = $1)"
    return bool(await connection.fetchval(query, f"topic:asgi:{group}"))


async def test_channel_gets_what_follows_its_joining_while_another_of_its_node_joins(
    receiver: PostgresChannelLayer, sender: PostgresChannelLayer, proxy: Proxy
) -> None:
    own, others = await receiver.new_channel(), await receiver.new_channel()
    proxy.freeze_at(b"topic:asgi:room")  # the node's call that hosts the group for its own channel
    joining = asyncio.create_task(receiver.group_add("room", own))
    await within(proxy.holding(b"topic:asgi:room"))
    await sender.group_add("room", others)
    await sender.group_send("room", numbered(1))
    proxy.restore()
    await within(joining)
    await sender.group_send("room", numbered(2))
    assert await numbers(receiver, others, 2) == [1, 2]
    assert await numbers(receiver, own, 1) == [2]


async def test_channel_gets_what_was_sent_between_its_joining_and_its_leaving(
    receiver: PostgresChannelLayer,
    sender: PostgresChannelLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    channel = await receiver.new_channel()
    for first in range(0, 20, 4):
        for number in range(first, first + 4):
            await sender.group_add("room", channel)
            await sender.group_send("room", numbered(number))
            await sender.group_discard("room", channel)
        await sender.send(channel, numbered(-1))
        assert await numbers(receiver, channel, 5) == [*range(first, first + 4), -1]
        node_of(receiver).beat_now()  # the node gives up what nobody is in
        await until(lambda: _is_not(hosts(connection, "room")))


async def test_channel_that_joins_while_its_node_gives_the_group_up_gets_what_follows(
    receiver: PostgresChannelLayer,
    sender: PostgresChannelLayer,
    proxy: Proxy,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    channel = await receiver.new_channel()
    await sender.group_add("room", channel)
    await sender.group_discard("room", channel)
    await sender.send(channel, numbered(0))
    assert await numbers(receiver, channel, 1) == [0]
    for call in ("request", "answer"):
        proxy.freeze_at(b"topic:asgi:room")
        node_of(receiver).beat_now()
        await within(proxy.holding(b"topic:asgi:room"))
        await sender.group_add("room", channel)
        await sender.group_send("room", numbered(1))
        await sender.group_discard("room", channel)
        await sender.send(channel, numbered(2))
        proxy.restore()
        assert await numbers(receiver, channel, 2) == [1, 2], call


async def test_direct_message_comes_behind_the_group_message_that_was_sent_before_it(
    receiver: PostgresChannelLayer, sender: PostgresChannelLayer
) -> None:
    channel = await receiver.new_channel()
    for number in range(0, 60, 3):
        group = f"group{number}"
        await sender.group_add(group, channel)
        await sender.group_send(group, numbered(number) | {"text": "x" * (9_000 if number % 2 else 0)})
        await sender.send(channel, numbered(number + 1))
        await sender.group_send(group, numbered(number + 2))
    assert await numbers(receiver, channel, 60) == list(range(60))


async def test_channel_whose_node_is_not_registered_joins_when_it_is_back(
    receiver: PostgresChannelLayer,
    sender: PostgresChannelLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    channel = await receiver.new_channel()
    await connection.execute("SELECT pgchannels.remove_nodes(array(SELECT id FROM pgchannels.node))")
    await sender.group_add("room", channel)
    await sender.group_send("room", numbered(1))
    await sender.send(channel, numbered(2))
    node_of(receiver).beat_now()
    assert await numbers(receiver, channel, 2) == [1, 2]
    await sender.group_send("room", numbered(3))
    assert await numbers(receiver, channel, 1) == [3]


async def test_channel_that_could_not_join_is_in_no_group(
    receiver: PostgresChannelLayer,
    sender: PostgresChannelLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    owner_url: str,
) -> None:
    channel = await receiver.new_channel()
    async with aclosing(_Refusing(connection)) as refusing:
        await refusing.begin()
        with pytest.raises(Exception, match="refused to subscribe"):
            await within(receiver.group_add("room", channel))
    await sender.group_send("room", numbered(1))
    await receiver.group_add("room", channel)
    await sender.group_send("room", numbered(2))
    assert await numbers(receiver, channel, 1) == [2]


async def test_group_of_a_channel_is_hosted_though_its_call_was_refused_to_somebody_else(
    receiver: PostgresChannelLayer,
    sender: PostgresChannelLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    own, others = await receiver.new_channel(), await receiver.new_channel()
    hosting = node_of(receiver).receiver.hosting
    async with aclosing(_Refusing(connection)) as refusing:
        with Gate(hosting, "_host", behind=True) as call:
            first = asyncio.create_task(receiver.group_add("first", own))
            await within(call.reached())
            await sender.group_add("room", others)
            joining = asyncio.create_task(receiver.group_add("news", own))
            await until(lambda: asyncio.sleep(0, {"topic:asgi:room", "topic:asgi:news"} <= hosting._to_add.keys()))
            await refusing.begin()
        await within(first)
        with pytest.raises(Exception, match="refused to subscribe"):
            await within(joining)
    await sender.group_send("room", numbered(1))
    assert await numbers(receiver, others, 1) == [1]


async def test_group_whose_hosting_is_asked_for_again_is_read_as_soon_as_all_before_was_heard(
    receiver: PostgresChannelLayer,
    sender: PostgresChannelLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
    owner_url: str,
) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event = '{}' AND datname = current_database()"
    channel = await receiver.new_channel()
    blocker = await asyncpg.connect(owner_url)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE pgchannels.subscription IN SHARE MODE")
        await sender.group_add("room", channel)
        await until(lambda: finds(connection, waiting.format("relation")))
        sending = asyncio.create_task(sender.group_send("room", numbered(1)))
        await until(lambda: finds(connection, waiting.format("transactionid")))
        await connection.execute(waiting.format("relation").replace("SELECT", "SELECT pg_terminate_backend(pid)"))
        await within(sending)
    await blocker.close()
    assert await numbers(receiver, channel, 1) == [1]


async def finds(connection: "asyncpg.Connection[asyncpg.Record]", query: str) -> bool:
    return bool(await connection.fetchval(f"SELECT EXISTS ({query})"))


async def test_channel_that_joins_gets_nothing_that_its_node_had_sent_before(
    receiver: PostgresChannelLayer, proxy: Proxy
) -> None:
    member, newcomer = await receiver.new_channel(), await receiver.new_channel()
    await receiver.group_add("room", member)
    recipients = node_of(receiver).receiver.router._routes["topic:asgi:room"].recipients
    proxy.freeze_at(b" topic:asgi:room ")  # the notification
    await receiver.group_send("room", numbered(1))
    await within(proxy.holding(b" topic:asgi:room "))
    joining = asyncio.create_task(receiver.group_add("room", newcomer))
    await until(lambda: asyncio.sleep(0, joining.done() or bool(recipients)))  # it waits there
    proxy.restore()
    await within(joining)
    await receiver.group_send("room", numbered(2))
    assert await numbers(receiver, member, 2) == [1, 2]
    assert await numbers(receiver, newcomer, 1) == [2]


class _Refusing:
    """Lets the database refuse to host anything."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def begin(self) -> None:
        await self._connection.execute(
            "ALTER TABLE pgchannels.subscription ADD CONSTRAINT refusing CHECK (false) NOT VALID"
        )

    async def aclose(self) -> None:
        await self._connection.execute("ALTER TABLE pgchannels.subscription DROP CONSTRAINT refusing")


async def _is_not(answer: Any) -> bool:
    return not await answer


@pytest.mark.parametrize("is_added_before", [False, True], ids=["removed", "added and removed"])
async def test_channel_that_joins_again_by_itself_stays_when_an_earlier_command_to_leave_comes(
    is_added_before: bool, receiver: PostgresChannelLayer, sender: PostgresChannelLayer, proxy: Proxy
) -> None:
    channel = await receiver.new_channel()
    await receiver.group_add("room", channel)
    proxy.freeze_at(b"node:asgi:")  # the notification of the command
    if is_added_before:
        await sender.group_add("room", channel)
    await sender.group_discard("room", channel)
    await within(proxy.holding(b"node:asgi:"))
    await sender.group_send("room", numbered(1))
    await within(receiver.group_add("room", channel))
    await sender.group_send("room", numbered(2))
    proxy.restore()
    assert await numbers(receiver, channel, 1) == [2]


async def test_channel_that_joins_twice_by_itself_gets_all_from_the_first_time_when_an_earlier_command_to_leave_comes(
    receiver: PostgresChannelLayer, sender: PostgresChannelLayer, proxy: Proxy
) -> None:
    channel = await receiver.new_channel()
    proxy.freeze_at(b"node:asgi:")  # the notification of the command
    await sender.group_add("room", channel)
    await sender.group_discard("room", channel)
    await within(proxy.holding(b"node:asgi:"))
    for number in range(3):
        await within(receiver.group_add("room", channel))
        await sender.group_send("room", numbered(number))
    proxy.restore()
    assert await numbers(receiver, channel, 3) == [0, 1, 2]


async def test_channel_that_joined_before_another_of_its_node_gets_what_was_sent_in_between_after_a_lost_connection(
    receiver: PostgresChannelLayer, sender: PostgresChannelLayer, proxy: Proxy
) -> None:
    first, second = await receiver.new_channel(), await receiver.new_channel()
    await receiver.group_add("room", second)
    await receiver.group_discard("room", second)  # the node still hosts the group
    await until(lambda: asyncio.sleep(0, not node_of(receiver).receiver.channels._topics))
    proxy.freeze_at(b"node:asgi:")  # the notification of the command
    await sender.group_add("room", first)
    await within(proxy.holding(b"node:asgi:"))
    await sender.group_send("room", numbered(1))
    await within(receiver.group_add("room", second))
    proxy.restore(held="drop")
    proxy.cut()
    await sender.group_send("room", numbered(2))
    assert await numbers(receiver, first, 2) == [1, 2]
    assert await numbers(receiver, second, 1) == [2]
