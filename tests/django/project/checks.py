"""What `manage.py test` runs in the project: a layer used inside Django's own tests."""

import asyncio
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import connection
from django.test import TransactionTestCase

from pgchannels.django import PostgresChannelLayer

LIMIT_SECONDS = 30


def the_layer() -> PostgresChannelLayer:
    """The configured layer."""
    layer = get_channel_layer()
    assert isinstance(layer, PostgresChannelLayer)
    return layer


async def send_and_receive() -> Any:
    """A message there and back, with the layer closed after it."""
    layer = the_layer()
    try:
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.group_send("room", {"type": "chat.message"})
        return await asyncio.wait_for(layer.receive(channel), LIMIT_SECONDS)
    finally:
        await layer.close()


class LayerInDjangoTests(TransactionTestCase):
    """A layer on the alias of the database that Django made for the tests."""

    def test_layer_works_in_a_synchronous_test(self) -> None:
        assert async_to_sync(send_and_receive)() == {"type": "chat.message"}

    async def test_layer_works_in_an_asynchronous_test(self) -> None:
        assert await send_and_receive() == {"type": "chat.message"}

    def test_layer_uses_the_database_of_the_tests(self) -> None:
        async_to_sync(the_layer().group_send)("room", {"type": "chat.message"})
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            [connections] = cursor.fetchone()
        assert connections > 0
        async_to_sync(the_layer().close)()
