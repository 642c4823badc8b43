"""What a certain member of a group gets: a channel that somebody has added to it, and that nobody begins to discard."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, TypeAlias

import asyncpg
import pytest

from pgchannels import PgChannelsError
from pgchannels.database import migrations
from pgchannels.django import PostgresChannelLayer
from pgchannels.embedded import EmbeddedServer
from pgchannels.names import node_name_of
from tests.support.proxy import Proxy
from tests.support.waiting import LIMIT_SECONDS, POLL_SECONDS, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

GAP: Final = "gap"
LARGE: Final = 9_000  # more than a notification takes


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[PostgresChannelLayer]:
    """A layer behind the proxy, whose channels are members."""
    layer = PostgresChannelLayer(proxy.url, on_gap=GAP)
    yield layer
    proxy.restore()
    await layer.close()


@pytest.fixture
async def beside(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """A layer as another process would have it."""
    layer = PostgresChannelLayer(database_url)
    await layer.new_channel()
    yield layer
    await layer.close()


def said(text: str, size: int = 0) -> dict[str, str]:
    return {"type": "said", "text": text, "filling": "x" * size}


async def hear(layer: PostgresChannelLayer, channel: str) -> str:
    """What the next message says, or that there is a gap."""
    message: dict[str, Any] = await within(layer.receive(channel))
    return str(message.get("text", message["type"]))


async def hold_all(proxy: Proxy, layer: PostgresChannelLayer, other: PostgresChannelLayer) -> None:
    """Wait until everything that was sent to a layer before now is held in front of it."""
    last = await layer.new_channel()
    await other.send(last, said("last"))
    await within(proxy.holding(last.encode()))


async def test_member_that_was_added_sent_to_and_discarded_while_it_was_away_gets_what_was_sent(
    proxy: Proxy, behind: PostgresChannelLayer, beside: PostgresChannelLayer
) -> None:
    channel = await behind.new_channel()
    proxy.refuse()
    proxy.cut()
    await beside.group_add("room", channel)
    await beside.group_send("room", said("to the group"))
    await beside.group_discard("room", channel)
    await beside.send(channel, said("to itself"))
    proxy.restore()
    assert [await hear(behind, channel) for _ in range(2)] == ["to the group", "to itself"]


async def test_direct_message_does_not_overtake_an_earlier_one_to_the_group(
    proxy: Proxy, behind: PostgresChannelLayer, beside: PostgresChannelLayer
) -> None:
    channel = await behind.new_channel()
    await beside.group_add("room", channel)
    proxy.freeze("to_client", new_connections=False)
    for number in range(10):
        await beside.group_send("room", said(f"group {number}", LARGE if number % 2 else 0))
        await beside.send(channel, said(f"direct {number}"))
    proxy.cut()
    proxy.restore()
    expected = [f"{way} {number}" for number in range(10) for way in ("group", "direct")]
    assert [await hear(behind, channel) for _ in expected] == expected


async def test_member_gets_what_is_sent_while_another_channel_of_its_process_joins_by_itself(
    proxy: Proxy, behind: PostgresChannelLayer, beside: PostgresChannelLayer
) -> None:
    own, other = await behind.new_channel(), await behind.new_channel()
    proxy.freeze("to_client", new_connections=False)
    await beside.group_add("room", other)
    joining = asyncio.create_task(behind.group_add("room", own))
    await beside.group_send("room", said("to the group"))
    await hold_all(proxy, behind, beside)
    proxy.restore()
    await within(joining)
    assert await hear(behind, other) == "to the group"


@pytest.mark.parametrize("is_away", [False, True], ids=["on its way", "to be read"])
async def test_member_that_leaves_by_itself_gets_what_was_sent_before(
    proxy: Proxy, behind: PostgresChannelLayer, beside: PostgresChannelLayer, is_away: bool
) -> None:
    channel = await behind.new_channel()
    await behind.group_add("room", channel)
    proxy.freeze("to_client", new_connections=is_away)
    if is_away:
        proxy.cut()
    await beside.group_send("room", said("to the group"))
    leaving = asyncio.create_task(behind.group_discard("room", channel))
    await asyncio.wait([leaving], timeout=POLL_SECONDS)
    proxy.restore()
    await within(leaving)
    await beside.send(channel, said("to itself"))
    assert [await hear(behind, channel) for _ in range(2)] == ["to the group", "to itself"]


async def test_channel_that_was_discarded_gets_nothing_that_is_sent_then(
    proxy: Proxy, behind: PostgresChannelLayer, beside: PostgresChannelLayer
) -> None:
    channel = await behind.new_channel()
    await behind.group_add("room", channel)
    proxy.freeze("to_client", new_connections=False)
    await beside.group_discard("room", channel)
    await beside.group_send("room", said("to the group"))
    await beside.send(channel, said("to itself"))
    proxy.restore()
    assert await hear(behind, channel) == "to itself"


async def test_member_that_was_added_while_its_lease_had_lapsed_gets_what_is_sent_then(
    behind: PostgresChannelLayer, beside: PostgresChannelLayer, proxy: Proxy, connection: Connection
) -> None:
    channel = await behind.new_channel()
    proxy.freeze()
    await connection.execute(
        "SELECT pgchannels.remove_nodes(ARRAY(SELECT id FROM pgchannels.node WHERE name = $1))",
        node_name_of(channel),
    )
    adding = asyncio.create_task(add_surely(beside, "room", channel))
    await asyncio.wait([adding], timeout=POLL_SECONDS)  # it may wait until the node is back
    proxy.restore()
    await within(adding)
    await beside.group_send("room", said("to the group"))
    while (heard := await hear(behind, channel)) == GAP:
        pass
    assert heard == "to the group"


async def add_surely(layer: PostgresChannelLayer, group: str, channel: str) -> None:
    """Add as often as it takes until it has worked once: not where the node of the channel cannot be found."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            try:
                return await layer.group_add(group, channel)
            except PgChannelsError:
                await asyncio.sleep(POLL_SECONDS)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A durable server with the schema."""
    with EmbeddedServer(durable=True) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


async def test_member_that_was_added_after_a_crash_before_its_process_was_back_gets_what_is_sent_then(
    server: EmbeddedServer,
) -> None:
    async with Proxy(server.url()) as proxy:
        behind, beside = PostgresChannelLayer(proxy.url, on_gap=GAP), PostgresChannelLayer(server.url())
        try:
            channel, _ = await behind.new_channel(), await beside.new_channel()
            proxy.refuse()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            adding = asyncio.create_task(add_surely(beside, "room", channel))
            await asyncio.wait([adding], timeout=1)  # as above; without waiting it has returned long before
            proxy.restore()
            await within(adding)
            assert await hear(behind, channel) == GAP
            await beside.group_send("room", said("to the group"))
            while (heard := await hear(behind, channel)) == GAP:
                pass
            assert heard == "to the group"
        finally:
            await asyncio.gather(behind.close(), beside.close())
