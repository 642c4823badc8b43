"""Servers are added and removed while everything runs: in three steps, and nothing is lost."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from pgchannels import GapReason, MessageLayer, MessagesLost
from tests.conftest import new_database
from tests.servers.topics import name_on
from tests.support.waiting import within

MOVING = name_on("c", among="abc", name=name_on("a", among="ab"))


@pytest.fixture
def three(urls: dict[str, str], server_url: str, template_name: str) -> Iterator[dict[str, str]]:
    """The two servers, and one more."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield {**urls, "c": url}


@pytest.mark.parametrize("is_added", [True, False])
async def test_each_step_receives_what_the_step_before_and_after_send(
    urls: dict[str, str], three: dict[str, str], is_added: bool
) -> None:
    old, new = (urls, three) if is_added else (three, urls)
    steps = [
        MessageLayer(old),
        MessageLayer(old, also_receive_from=new),
        MessageLayer(new, also_receive_from=old),
        MessageLayer(new),
    ]
    for earlier, later in pairwise(steps):
        async with earlier, later:
            subscriptions = [earlier.subscribe(MOVING), later.subscribe(MOVING)]
            for subscription in subscriptions:
                await subscription.__aenter__()
            for sender in (earlier, later):
                await sender.publish(MOVING, "hello")
                for subscription in subscriptions:
                    assert (await within(anext(subscription))).payload == "hello"
            for subscription in subscriptions:
                await subscription.__aexit__(None, None, None)
            channel = await later.new_channel()
            await earlier.send(channel, "to a channel")
            assert await within(later.receive(channel)) == "to a channel"
            for sender, receiver in ((earlier, later), (later, earlier)):
                await sender.send("jobs", "to a queue")
                assert await within(receiver.receive("jobs")) == "to a queue"


@pytest.mark.parametrize("is_added", [True, False])
async def test_pinned_topic_moves_in_steps_as_others_do(
    urls: dict[str, str], three: dict[str, str], is_added: bool
) -> None:
    fewer: dict[str, Any] = {"servers": urls, "pinned": None if is_added else {"orders.*": "a"}}
    more: dict[str, Any] = {"servers": three, "pinned": {"orders.*": "c"}}
    old, new = (fewer, more) if is_added else (more, fewer)
    steps = [_step(old, old), _step(old, new), _step(new, old), _step(new, new)]
    for earlier, later in pairwise(steps):
        async with earlier, later, earlier.subscribe("orders.1") as before, later.subscribe("orders.1") as after:
            for sender in (earlier, later):
                await sender.publish("orders.1", "hello")
                for subscription in (before, after):
                    assert (await within(anext(subscription))).payload == "hello"


def _step(sent_to: dict[str, Any], also: dict[str, Any]) -> MessageLayer:
    pinned = {"pinned": sent_to["pinned"]}
    if sent_to is also:
        return MessageLayer(sent_to["servers"], **pinned)
    return MessageLayer(
        sent_to["servers"], **pinned, also_receive_from=also["servers"], also_pinned=also["pinned"] or {}
    )


async def test_subscriber_that_resumes_at_each_step_misses_and_repeats_nothing(
    urls: dict[str, str], three: dict[str, str]
) -> None:
    steps = [
        MessageLayer(urls),
        MessageLayer(urls, also_receive_from=three),
        MessageLayer(three, also_receive_from=urls),
        MessageLayer(three),
    ]
    since, received = None, []
    for number, step in enumerate(steps):
        async with step:
            if since is None:
                async with step.subscribe(MOVING) as subscription:
                    since = str(subscription.position)
            await step.publish(MOVING, number)
            async with step.subscribe(MOVING, since=since) as subscription:
                received.append((await within(anext(subscription))).payload)
                since = str(subscription.position)
            await step.publish(MOVING, f"{number} while away")
            async with step.subscribe(MOVING, since=since) as subscription:
                received.append((await within(anext(subscription))).payload)
                since = str(subscription.position)
    assert received == [0, "0 while away", 1, "1 while away", 2, "2 while away", 3, "3 while away"]


async def test_position_of_a_topic_that_moved_at_once_gets_a_gap(urls: dict[str, str], three: dict[str, str]) -> None:
    async with MessageLayer(urls) as before:
        async with before.subscribe(MOVING) as subscription:
            since = str(subscription.position)
        await before.publish(MOVING, "lost to a subscriber that is away")
    async with MessageLayer(three) as after:
        await after.publish(MOVING, "on the new server")
        async with after.subscribe(MOVING, since=since) as subscription:
            with pytest.raises(MessagesLost) as raised:
                await within(anext(subscription))
            assert raised.value.gap.reason is GapReason.MOVED
            assert (await within(anext(subscription))).payload == "on the new server"
