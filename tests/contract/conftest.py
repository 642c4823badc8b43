"""Every test here runs on Channels' own layer, which is the oracle, and on ours."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Protocol

import pytest
from channels.layers import InMemoryChannelLayer

from pgchannels.django import PostgresChannelLayer

from .layers import CAPACITY, AnyLayer


class LayerFactory(Protocol):
    """Makes a layer in which this many messages wait for one receiver at most."""

    def __call__(self, *, capacity: int) -> AnyLayer: ...


@pytest.fixture(params=["in_memory", "postgres"])
def new_layer(request: pytest.FixtureRequest) -> LayerFactory:
    """The class under test."""
    if request.param == "in_memory":
        return InMemoryChannelLayer
    return partial(PostgresChannelLayer, url=request.getfixturevalue("database_url"))


@pytest.fixture
async def channel_layer(new_layer: LayerFactory) -> AsyncIterator[AnyLayer]:
    """A layer of either class, empty."""
    layer = new_layer(capacity=CAPACITY)
    yield layer
    await layer.close()


@pytest.fixture
async def small_layer(new_layer: LayerFactory) -> AsyncIterator[AnyLayer]:
    """A layer of either class in which three messages wait for one receiver at most."""
    layer = new_layer(capacity=3)
    yield layer
    await layer.close()


@pytest.fixture
async def postgres_layer(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """Our layer, for what the oracle does not do."""
    layer = PostgresChannelLayer(url=database_url)
    yield layer
    await layer.close()


@pytest.fixture
async def other_node(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """Our layer once more on the same database, as another process would have it."""
    layer = PostgresChannelLayer(url=database_url)
    yield layer
    await layer.close()


@pytest.fixture(params=["work_queue", "own_channel"])
async def channel(request: pytest.FixtureRequest, channel_layer: AnyLayer) -> str:
    """A channel of either kind: one that any process may read, and one of this process."""
    return "work_queue" if request.param == "work_queue" else await channel_layer.new_channel()
