"""Arguments at the ends of what is allowed work."""

from typing import Any

import pytest

from pgchannels import MessageLayer
from pgchannels.arguments import DAY, TEN_YEARS
from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within


@pytest.mark.parametrize(
    "options",
    [
        {"expiry": TEN_YEARS, "send_timeout": DAY, "heartbeat": DAY, "capacity": 10**400},
        {"heartbeat": 0.001, "capacity": 1, "channel_capacity": {"*": 10**400}},
    ],
)
async def test_greatest_and_least_options_work(database_url: str, options: dict[str, Any]) -> None:
    async with MessageLayer(database_url, **options) as layer:
        channel = await layer.new_channel()
        async with layer.subscribe("room", capacity=options["capacity"]) as subscription:
            position = await layer.publish("room", 1)
            assert (await within(anext(subscription))).position == position
        for name in (channel, "jobs"):
            await layer.send(name, 1)
            assert await within(layer.receive(name)) == 1
        assert [message.payload for message in await layer.history("room", limit=10**400)] == [1]
        assert await layer.history("room", limit=0) == []


@pytest.mark.parametrize("group_expiry", [0, TEN_YEARS])
async def test_longest_membership_works(database_url: str, group_expiry: float) -> None:
    layer = PostgresChannelLayer(database_url, group_expiry=group_expiry)
    for channel in ("jobs", await layer.new_channel()):
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "hi"})
        assert await within(layer.receive(channel)) == {"type": "hi"}
        await layer.group_discard("room", channel)
    await layer.close()
