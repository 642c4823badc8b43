"""Schemas with names of every kind beside each other."""

import pytest

from pgchannels import MessageLayer
from pgchannels.database import migrations
from tests.support.waiting import within


@pytest.mark.parametrize("schema", ["team_", "__", "__x", "s__"])
async def test_schema_may_begin_and_end_with_underscores(empty_database_url: str, schema: str) -> None:
    await migrations.upgrade(empty_database_url, schema=schema)
    async with MessageLayer(empty_database_url, schema=schema) as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", "hello")
        assert (await within(anext(subscription))).payload == "hello"


async def test_schemas_that_differ_by_an_underscore_do_not_hear_each_other(empty_database_url: str) -> None:
    for schema in ("s", "s_"):
        await migrations.upgrade(empty_database_url, schema=schema)
    async with (
        MessageLayer(empty_database_url, schema="s") as one,
        MessageLayer(empty_database_url, schema="s_") as other,
        one.subscribe("room") as subscription,
    ):
        await other.publish("room", "of s_")
        await one.publish("room", "of s")
        assert (await within(anext(subscription))).payload == "of s"
