"""Every test here runs on Channels' own layer, which is the oracle, and on ours with one server and with two."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Protocol

import pytest
from channels.layers import InMemoryChannelLayer

from pgchannels.django import PostgresChannelLayer
from tests.conftest import new_database, url_of_role

from .layers import CAPACITY, AnyLayer


class LayerFactory(Protocol):
    """Makes a layer in which this many messages wait for one receiver at most."""

    def __call__(self, *, capacity: int) -> AnyLayer: ...


@pytest.fixture
def second_url(server_url: str, template_name: str, application_role: str) -> Iterator[str]:
    """Another fresh database, for a second server."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield url_of_role(url, application_role)


@pytest.fixture(params=["in_memory", "postgres", "two_servers"])
def new_layer(request: pytest.FixtureRequest) -> LayerFactory:
    """The class under test."""
    if request.param == "in_memory":
        return InMemoryChannelLayer
    url = request.getfixturevalue("database_url")
    if request.param == "postgres":
        return partial(PostgresChannelLayer, url=url)
    return partial(PostgresChannelLayer, urls={"a": url, "b": request.getfixturevalue("second_url")})


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
