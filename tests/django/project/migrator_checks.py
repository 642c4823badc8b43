"""What pytest runs in the project that tests its migrations with django-test-migrations."""

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

pytestmark = pytest.mark.django_db(transaction=True)


async def send_and_receive() -> Any:
    """A message there and back."""
    layer = get_channel_layer()
    await layer.send("thumbnails", {"type": "hello"})
    return await asyncio.wait_for(layer.receive("thumbnails"), 30)


@pytest.mark.parametrize("_time", range(2))
def test_layer_works_while_the_migrations_of_the_project_are_tested(migrator: Any, _time: int) -> None:
    """Before the migration, after it, and in a second test behind the first one's reset."""
    migrator.apply_initial_migration(("pgchannels", None))
    migrator.apply_tested_migration(("pgchannels", "0001_log"))
    assert async_to_sync(send_and_receive)() == {"type": "hello"}
    migrator.reset()
    assert async_to_sync(send_and_receive)() == {"type": "hello"}
