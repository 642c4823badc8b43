"""What `empty_channel_layers` empties, and what it leaves alone."""

import asyncpg
import pytest
from channels.layers import channel_layers, get_channel_layer
from django.test import override_settings

from pgchannels import ConfigurationError
from pgchannels.django import PostgresChannelLayer
from pgchannels.django.testing import empty_channel_layers
from tests.django.impossible import URL
from tests.django.talking import in_plain_thread
from tests.support.django_settings import the_layer
from tests.support.waiting import within

BACKEND = "pgchannels.django.PostgresChannelLayer"


async def test_layer_with_a_database_of_its_own_is_replaced_by_its_test_config(database_url: str) -> None:
    layer = {"BACKEND": BACKEND, "CONFIG": {"url": URL}, "TEST_CONFIG": {"url": database_url}}
    with override_settings(CHANNEL_LAYERS={"default": layer}):
        for text in ("first", "second"):
            await within(in_plain_thread(empty_channel_layers))
            await the_layer().send("jobs", {"type": text})
            assert await within(the_layer().receive("jobs")) == {"type": text}
            await the_layer().send("jobs", {"type": "left behind"})
        await the_layer().close()


def test_database_that_is_not_the_tests_own_is_left_alone() -> None:
    layers = {"default": {"BACKEND": BACKEND, "CONFIG": {"url": URL}}}
    with override_settings(CHANNEL_LAYERS=layers), pytest.raises(ConfigurationError, match="TEST_CONFIG"):
        empty_channel_layers()


def test_layers_of_others_are_left_alone() -> None:
    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(CHANNEL_LAYERS=layers):
        empty_channel_layers()
        assert get_channel_layer() is channel_layers["default"]


async def test_node_of_a_process_that_was_killed_is_not_waited_for(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    killed = "gen_random_uuid() AS id, 'killed' AS name, now() + interval '1 hour' AS leased_until"
    await connection.execute(
        f"WITH n AS (INSERT INTO pgchannels.node (id, name, leased_until) SELECT {killed} RETURNING *), l AS ("
        " INSERT INTO pgchannels.lease SELECT id, 'node:asgi:killed', leased_until FROM n)"
        " INSERT INTO pgchannels.subscription (address, node) SELECT 'node:asgi:killed', id FROM n"
    )
    layer = PostgresChannelLayer(database_url)
    channel = await layer.new_channel()
    await layer.send("jobs", {"type": "left behind"})
    await within(in_plain_thread(layer.empty))
    [node] = await connection.fetch("SELECT name FROM pgchannels.node")
    assert node["name"] in channel
    await layer.send("jobs", {"type": "next"})
    assert await within(layer.receive("jobs")) == {"type": "next"}
    await layer.close()
