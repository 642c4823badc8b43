"""What the tests of a Django project start with."""

from collections.abc import AsyncIterator

import pytest

from pgchannels.django import PostgresChannelLayer
from tests.support.django_settings import add_database, channel_layers, the_layer

__all__ = ["add_database"]


@pytest.fixture
async def configured_layer(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """The layer of the settings."""
    with channel_layers(url=database_url):
        layer = the_layer()
        yield layer
        await layer.close()
