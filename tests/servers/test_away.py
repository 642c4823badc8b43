"""A server that is away stops only what it carries. It is really killed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial

import pytest

from pgchannels import DatabaseUnavailable, GapReason, MessageLayer, MessagesLost
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from pgchannels.names import node_name_of
from pgchannels.servers.placement import rendezvous
from tests.servers.topics import ON_A, ON_B, name_on
from tests.support.proxy import Proxy
from tests.support.waiting import until, within

new_layer = partial(MessageLayer, heartbeat=0.3, send_timeout=1)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server that can be killed."""
    with EmbeddedServer(durable=True) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


@pytest.fixture
async def urls(server: EmbeddedServer, owner_url: str) -> AsyncIterator[dict[str, str]]:
    """Two servers; the first one is up again afterwards."""
    yield {"a": server.url(), "b": owner_url}
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def test_subscription_to_a_topic_that_is_away_says_so_in_time(
    urls: dict[str, str], server: EmbeddedServer
) -> None:
    async with new_layer(urls) as layer:
        await asyncio.to_thread(server.kill)
        with pytest.raises(DatabaseUnavailable, match=r"server 'a'.*could not subscribe .* within 1 seconds"):
            async with layer.subscribe(ON_A, ON_B):
                pass


async def test_topics_of_other_servers_go_on(urls: dict[str, str], server: EmbeddedServer) -> None:
    async with new_layer(urls) as layer, layer.subscribe(ON_A, ON_B) as subscription:
        channel = await layer.new_channel()
        await layer.publish(ON_A, "before")
        assert (await within(anext(subscription))).payload == "before"
        await asyncio.to_thread(server.kill)
        with pytest.raises(DatabaseUnavailable, match="of the server 'a'"):
            await within(layer.publish(ON_A, "nobody takes this"))
        for number in range(3):
            await within(layer.publish(ON_B, number))
            assert (await within(anext(subscription))).payload == number
        with pytest.raises(DatabaseUnavailable, match="of the server 'a'") as raised:
            await within(layer.publish_many([(ON_A, 1), (ON_B, "the other server takes this")]))
        assert raised.value.may_have_been_sent
        assert (await within(anext(subscription))).payload == "the other server takes this"
        await within(layer.send(name_on("b", of="queue"), "job"))
        assert await within(layer.receive(name_on("b", of="queue"))) == "job"
        await asyncio.to_thread(server.start)
        with pytest.raises(MessagesLost) as lost:
            await within(anext(subscription))
        assert lost.value.gap.reason is GapReason.CRASH
        await within(layer.publish(ON_A, "after"))
        assert (await within(anext(subscription))).payload == "after"
        await within(layer.send(channel, "to the channel"))
        assert await within(layer.receive(channel, on_gap=lambda _: None)) == "to the channel"


async def test_layer_opens_without_a_server_that_is_away(urls: dict[str, str], server: EmbeddedServer) -> None:
    await asyncio.to_thread(server.kill)
    async with new_layer(urls) as layer:
        async with layer.subscribe(ON_B) as subscription:
            await within(layer.publish(ON_B, "goes on"))
            assert (await within(anext(subscription))).payload == "goes on"
        with pytest.raises(DatabaseUnavailable, match=r"of the server 'a'.* is not back yet"):
            await layer.subscribe(ON_A).__aenter__()
        with pytest.raises(DatabaseUnavailable, match="of the server 'a'"):
            await layer.history(ON_A)
        channel, queue = await layer.new_channel(), name_on("a", of="queue")
        receiving = [asyncio.ensure_future(layer.receive(name)) for name in (channel, queue)]
        await asyncio.to_thread(server.start)
        await until(lambda: is_there(layer))
        async with layer.subscribe(ON_A) as subscription:
            await within(layer.publish(ON_A, "back"))
            assert (await within(anext(subscription))).payload == "back"
        await within(layer.send(queue, "job"))
        await within(layer.send(channel, "hello"))
        assert [await within(one) for one in receiving] == ["hello", "job"]


async def is_there(layer: MessageLayer) -> bool:
    """Whether the layer has a node on the first server."""
    try:
        async with layer.subscribe(ON_A):
            return True
    except DatabaseUnavailable:
        return False


async def test_replay_of_one_server_does_not_wait_for_another(urls: dict[str, str], server: EmbeddedServer) -> None:
    async with new_layer(urls) as layer:
        async with layer.subscribe(ON_A, ON_B) as subscription:
            since = str(subscription.position)
        await layer.publish_many([(topic, number) for number in range(20) for topic in (ON_A, ON_B)])
        async with layer.subscribe(ON_A, ON_B, since=since) as subscription:
            await asyncio.to_thread(server.kill)
            received = [(await within(anext(subscription))) for _ in range(20)]
            assert [message.payload for message in received if message.topic == ON_B] == list(range(20))
            await within(layer.publish(ON_B, "live"))
            assert (await within(anext(subscription))).payload == "live"


async def test_layer_does_not_open_if_all_servers_are_away(urls: dict[str, str], server: EmbeddedServer) -> None:
    await asyncio.to_thread(server.kill)
    layer = new_layer({"a": urls["a"]})
    with pytest.raises(DatabaseUnavailable, match="of the server 'a'"):
        await layer.open()
    await layer.close()


async def test_what_was_sent_to_a_channel_before_its_node_was_there_arrives(urls: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(urls["a"]))
        proxy.refuse()
        other = await stack.enter_async_context(new_layer(urls))
        is_on_first = False
        while not is_on_first:
            layer = await stack.enter_async_context(new_layer({"a": proxy.url, "b": urls["b"]}))
            channel = await layer.new_channel()
            is_on_first = rendezvous("ab", f"node:asgi:{node_name_of(channel)}") == "a"
        await within(other.send(channel, "early"))
        proxy.restore()
        assert await within(layer.receive(channel)) == "early"
