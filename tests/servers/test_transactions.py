"""Messages of transactions go to the server of the transaction, or nowhere."""

import asyncio

import asyncpg
import psycopg
import pytest

from pgchannels import ConfigurationError, MessageLayer
from tests.servers.topics import ON_A, ON_B
from tests.support.waiting import within


async def test_message_of_a_transaction_is_delivered_at_its_commit(urls: dict[str, str]) -> None:
    async with MessageLayer(urls) as layer, layer.subscribe(ON_A, ON_B) as subscription:
        for server, topic in (("a", ON_A), ("b", ON_B)):
            connection = await asyncpg.connect(urls[server])
            async with connection.transaction():
                await layer.publish(topic, "committed", connection=connection)
            await connection.close()
            message = await within(anext(subscription))
            assert (message.topic, message.payload, message.position.server) == (topic, "committed", server)


async def test_pinned_topic_is_on_the_server_of_its_transactions(urls: dict[str, str]) -> None:
    async with MessageLayer(urls, pinned={ON_B: "a"}) as layer, layer.subscribe(ON_B) as subscription:
        with psycopg.connect(urls["a"]) as connection:
            await asyncio.to_thread(layer.sync.publish, ON_B, "committed", connection=connection)
        assert (await within(anext(subscription))).payload == "committed"
        layer.sync.close()


async def test_topic_of_another_server_is_refused(urls: dict[str, str]) -> None:
    layer = MessageLayer(urls)
    connection = await asyncpg.connect(urls["a"])
    async with connection.transaction():
        with pytest.raises(ConfigurationError, match=f"{ON_B} is on the server 'b'.*pinned={{'{ON_B}': 'a'}}"):
            await layer.publish_many([(ON_A, 1), (ON_B, 2)], connection=connection)
        await layer.publish(ON_A, "the transaction goes on", connection=connection)
    assert [row["payload"] for row in await connection.fetch("SELECT payload FROM pgchannels.outbox")] == []
    await connection.close()
    await layer.close()
    async with layer:
        assert [message.payload for message in await layer.history(ON_A)] == ["the transaction goes on"]


async def test_connection_to_no_server_is_refused(urls: dict[str, str], owner_url: str) -> None:
    layer = MessageLayer(urls)
    with psycopg.connect(owner_url) as connection, pytest.raises(ConfigurationError, match="none of the layer's serv"):
        await asyncio.to_thread(layer.sync.publish, ON_A, 1, connection=connection)
    other = await asyncpg.connect(owner_url)
    with pytest.raises(ConfigurationError, match="none of the layer's servers, 'a', 'b'"):
        await layer.send("jobs", 1, connection=other)
    await other.close()
    await layer.close()


async def test_queues_and_channels_take_messages_of_transactions_on_any_server(
    urls: dict[str, str], layer: MessageLayer
) -> None:
    channel = await layer.new_channel()
    for url in urls.values():
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await layer.send("jobs", "job", connection=connection)
            await layer.send(channel, "hello", connection=connection)
        await connection.close()
        assert await within(layer.receive("jobs")) == "job"
        assert await within(layer.receive(channel)) == "hello"
