"""A layer on a database that has not the tables."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from asgiref.sync import async_to_sync

from pgchannels import SchemaMissing
from pgchannels.database import migrations
from pgchannels.django import PostgresChannelLayer
from tests.django.talking import in_plain_thread
from tests.support.django_settings import channel_layers, the_layer
from tests.support.waiting import until, within

COMMANDS = r"manage\.py migrate|pgchannels upgrade"

VERBS: dict[str, Callable[[PostgresChannelLayer], Awaitable[object]]] = {
    "send": lambda layer: layer.send("work_queue", {"type": "hello"}),
    "send to a channel of a process": lambda layer: layer.send("specific!abc", {"type": "hello"}),
    "new_channel": lambda layer: layer.new_channel(),
    "group_add": lambda layer: layer.group_add("room", "work_queue"),
    "group_discard": lambda layer: layer.group_discard("room", "work_queue"),
    "group_send": lambda layer: layer.group_send("room", {"type": "hello"}),
    "flush": lambda layer: layer.flush(),
}


@pytest.fixture
async def layer_without_tables(empty_database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """A configured layer whose database has not been migrated."""
    with channel_layers(url=empty_database_url):
        layer = the_layer()
        yield layer
        await layer.close()


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
async def test_using_a_layer_without_its_tables_names_the_command_that_makes_them(
    layer_without_tables: PostgresChannelLayer, verb: Callable[[PostgresChannelLayer], Awaitable[object]]
) -> None:
    for _ in range(2):
        with pytest.raises(SchemaMissing, match=COMMANDS):
            await within(verb(layer_without_tables))


async def test_receiver_waits_for_the_tables_and_logs_the_command_that_makes_them(
    layer_without_tables: PostgresChannelLayer, empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiving = asyncio.create_task(layer_without_tables.receive("work_queue"))
    await until(lambda: asyncio.sleep(0, bool(re.search(COMMANDS, caplog.text))))
    await migrations.upgrade(empty_database_url)
    await layer_without_tables.send("work_queue", {"type": "hello"})
    assert await within(receiving) == {"type": "hello"}


async def test_plain_thread_is_told_the_command_that_makes_the_tables(
    layer_without_tables: PostgresChannelLayer,
) -> None:
    sending = in_plain_thread(lambda: async_to_sync(layer_without_tables.group_send)("room", {"type": "hello"}))
    with pytest.raises(SchemaMissing, match=COMMANDS):
        await within(sending)
