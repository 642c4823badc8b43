"""Django configured once for the process; each test puts its own database and layers into the settings."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import django
import pytest
from channels.layers import get_channel_layer
from django.conf import settings
from django.db import connections
from django.test import override_settings

from pgchannels.django import PostgresChannelLayer
from tests.support.waiting import within

settings.configure(
    SECRET_KEY="a secret for tests alone",
    USE_TZ=True,
    DATABASES={"default": {}},
    INSTALLED_APPS=["pgchannels.django"],
)
django.setup()

AddDatabase = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def add_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[AddDatabase]:
    """Puts a database into the settings under an alias."""
    added = []

    def add(alias: str, database: dict[str, Any]) -> None:
        # Django warns when `DATABASES` is overridden as a whole.
        monkeypatch.setitem(settings.DATABASES, alias, dict(database))
        connections.configure_settings(settings.DATABASES)
        added.append(alias)

    yield add
    for alias in added:
        connections[alias].close()
        del connections[alias]


def channel_layers(**config: Any) -> AbstractContextManager[object]:
    """The settings of one layer with this `CONFIG`."""
    layer = {"BACKEND": "pgchannels.django.PostgresChannelLayer", "CONFIG": config}
    return override_settings(CHANNEL_LAYERS={"default": layer})


def the_layer() -> PostgresChannelLayer:
    """The layer of the settings."""
    layer = get_channel_layer()
    assert isinstance(layer, PostgresChannelLayer)
    return layer


async def works(layer: PostgresChannelLayer) -> bool:
    """Send a message there and back, and close the layer."""
    try:
        channel = await within(layer.new_channel())
        await within(layer.send(channel, {"type": "hello"}))
        return await within(layer.receive(channel)) == {"type": "hello"}
    finally:
        await layer.close()
