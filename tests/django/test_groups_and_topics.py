"""A group of Channels is a topic of `MessageLayer`; any thread and any event loop can send to it."""

import asyncio
import threading
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, sync_to_async
from channels.layers import get_channel_layer

from pgchannels import MessageLayer
from pgchannels.django import PostgresChannelLayer
from pgchannels.serializers import registry
from tests.django.talking import in_plain_thread, texts_of
from tests.support.django_databases import connection_count
from tests.support.django_settings import the_layer
from tests.support.roads import node_of
from tests.support.waiting import until, within

T = TypeVar("T")

MAXIMUM_CONNECTIONS = 3 + 1  # of the subscriber's layer, and of the channel layer, which only sends


def send_many(texts: range) -> None:
    """Send to the group as a view does, one message after the other."""
    for text in texts:
        layer = get_channel_layer()
        assert layer
        async_to_sync(layer.group_send)("room", {"type": "chat.message", "text": text})


def threads_of_layers() -> set[threading.Thread]:
    """All threads but those in which the test's own event loop runs what would block it."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_fifty_messages_of_a_plain_thread_reach_a_subscriber_in_order_with_few_connections(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        await within(in_plain_thread(lambda: send_many(range(50))))
        assert await texts_of(subscription, 50) == list(range(50))
        assert await connection_count(database_url) <= MAXIMUM_CONNECTIONS


async def test_many_threads_send_with_few_connections(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        threads = [in_plain_thread(lambda: send_many(range(10))) for _ in range(20)]
        await within(asyncio.gather(*threads))
        assert sorted(await texts_of(subscription, 200)) == sorted(list(range(10)) * 20)
        assert await connection_count(database_url) <= MAXIMUM_CONNECTIONS


async def test_threads_that_send_beside_a_loop_that_receives_on_the_same_layer_need_few_connections(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    channel = await configured_layer.new_channel()
    await configured_layer.group_add("room", channel)
    await within(asyncio.gather(*[in_plain_thread(lambda: send_many(range(10))) for _ in range(5)]))
    received = [(await within(configured_layer.receive(channel)))["text"] for _ in range(50)]
    assert sorted(received) == sorted(list(range(10)) * 5)
    assert await connection_count(database_url) <= MAXIMUM_CONNECTIONS


async def test_event_loops_that_come_and_go_leave_no_connection_behind(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    def send_each_in_a_loop_of_its_own() -> None:
        for text in range(10):
            asyncio.run(the_layer().group_send("room", {"type": "chat.message", "text": text}))

    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        await within(in_plain_thread(send_each_in_a_loop_of_its_own))
        assert await texts_of(subscription, 10) == list(range(10))
        assert await connection_count(database_url) <= MAXIMUM_CONNECTIONS


async def test_synchronous_code_under_an_event_loop_sends(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        await within(sync_to_async(send_many)(range(10)))
        assert await texts_of(subscription, 10) == list(range(10))


async def test_plain_thread_sends_to_a_channel_and_adds_it_to_a_group(configured_layer: PostgresChannelLayer) -> None:
    channel = await configured_layer.new_channel()

    def use_every_verb() -> None:
        layer = the_layer()
        async_to_sync(layer.send)(channel, {"type": "direct"})
        async_to_sync(layer.group_add)("room", channel)
        async_to_sync(layer.group_send)("room", {"type": "to the group"})
        async_to_sync(layer.group_discard)("room", channel)
        async_to_sync(layer.group_send)("room", {"type": "to nobody"})
        async_to_sync(layer.send)(channel, {"type": "last"})

    await within(in_plain_thread(use_every_verb))
    received = [(await within(configured_layer.receive(channel)))["type"] for _ in range(3)]
    assert received == ["direct", "to the group", "last"]


async def test_published_message_reaches_the_members_of_the_group_of_that_name(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    own = await configured_layer.new_channel()
    for member in (own, "work_queue"):
        await configured_layer.group_add("room", member)
    async with MessageLayer(database_url) as layer:
        await layer.publish("room", {"type": "chat.message", "text": "hello"})
        await layer.publish("other-room", {"type": "chat.message", "text": "elsewhere"})
    for member in (own, "work_queue"):
        assert await within(configured_layer.receive(member)) == {"type": "chat.message", "text": "hello"}


async def test_published_payload_that_is_no_dictionary_is_passed_over_by_channels(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    own = await configured_layer.new_channel()
    for member in (own, "work_queue"):
        await configured_layer.group_add("room", member)
    async with MessageLayer(database_url) as layer:
        for payload in ("text", None, [1], {"type": "chat.message"}):
            await layer.publish("room", payload)
    for member in (own, "work_queue"):
        assert await within(configured_layer.receive(member)) == {"type": "chat.message"}


async def test_group_message_stands_in_the_history_of_the_topic(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    await configured_layer.group_send("room", {"type": "chat.message", "text": "hello"})
    async with MessageLayer(database_url) as layer:
        [message] = await layer.history("room")
    assert message.payload == {"type": "chat.message", "text": "hello"}


async def test_closed_layer_leaves_no_connection_task_or_thread_behind(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    threads = threads_of_layers()
    channel = await configured_layer.new_channel()
    await configured_layer.group_add("room", channel)
    await within(in_plain_thread(lambda: send_many(range(5))))
    await within(configured_layer.receive(channel))
    await configured_layer.close()

    async def is_disconnected() -> bool:
        return await connection_count(database_url) == 0

    await until(is_disconnected)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert threads_of_layers() <= threads


async def test_layer_that_only_sent_from_threads_leaves_nothing_behind_when_closed(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    threads = threads_of_layers()
    await within(in_plain_thread(lambda: send_many(range(5))))
    await within(in_plain_thread(lambda: async_to_sync(the_layer().close)()))

    async def is_disconnected() -> bool:
        return await connection_count(database_url) == 0

    await until(is_disconnected)
    assert threads_of_layers() <= threads


async def test_closed_layer_works_again_when_it_is_used_again(configured_layer: PostgresChannelLayer) -> None:
    for number in range(3):
        channel = await configured_layer.new_channel()
        await configured_layer.send(channel, {"type": "hello", "number": number})
        assert await within(configured_layer.receive(channel)) == {"type": "hello", "number": number}
        await configured_layer.close()


async def test_what_is_no_dict_is_counted_and_passed_over(
    configured_layer: PostgresChannelLayer, database_url: str
) -> None:
    channel = await configured_layer.new_channel()
    await configured_layer.group_add("room", channel)
    async with MessageLayer(database_url) as layer:
        await layer.publish_many([("room", payload) for payload in ("text", None, [1], {"type": "good"})])
    assert await within(configured_layer.receive(channel)) == {"type": "good"}
    node = node_of(configured_layer)
    assert node.receiver.payloads.unreadable == 3


class Typed:
    """Carries what the consumers of a project send, and nothing else."""

    def as_bytes(self, message: Any) -> bytes:
        text: str = f"{message['type']} {message['text']}"
        return text.encode()

    def from_bytes(self, message: bytes) -> Any:
        kind, text = message.decode().split(" ")
        return {"type": kind, "text": text}


async def test_commands_between_nodes_do_not_pass_through_a_format_of_ones_own(database_url: str) -> None:
    registry.register_serializer("typed", Typed)
    layers = [PostgresChannelLayer(database_url, serializer_format="typed") for _ in range(2)]
    one, other = layers
    channel = await one.new_channel()
    await other.new_channel()
    await other.group_add("room", channel)
    await other.group_send("room", {"type": "first", "text": "hi"})
    assert await within(one.receive(channel)) == {"type": "first", "text": "hi"}
    await other.group_discard("room", channel)
    await other.flush()
    await other.group_send("room", {"type": "nobody", "text": "hears"})
    await other.send(channel, {"type": "last", "text": "bye"})
    assert await within(one.receive(channel)) == {"type": "last", "text": "bye"}
    for layer in layers:
        await layer.close()
