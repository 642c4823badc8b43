"""Every test here runs on Channels' own layer, which is the oracle, and on ours.

`PGCHANNELS_TEST_WAY` says how ours reaches its database: `poll`, or through PgBouncer in transaction mode with
`pgbouncer-poll` and `pgbouncer-listen`; otherwise as usual.
"""

import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Final, Protocol

import pytest
from channels.layers import InMemoryChannelLayer
from sqlalchemy import make_url

from pgchannels.django import PostgresChannelLayer
from tests.support.poolers import pgbouncer

from .layers import CAPACITY, AnyLayer

POLL_SECONDS: Final = 0.05


class LayerFactory(Protocol):
    """Makes a layer in which this many messages wait for one receiver at most."""

    def __call__(self, *, capacity: int) -> AnyLayer: ...


@pytest.fixture(scope="session")
def pooler(server_url: str) -> Iterator[str]:
    """The server through PgBouncer in transaction mode."""
    with pgbouncer(server_url, mode="transaction", most=3) as url:
        yield url


@pytest.fixture
def way(request: pytest.FixtureRequest, database_url: str) -> dict[str, Any]:
    """How our layer reaches its database, as its arguments."""
    chosen = os.environ.get("PGCHANNELS_TEST_WAY", "")
    if not chosen.startswith("pgbouncer"):
        return {"url": database_url} | ({"poll": POLL_SECONDS} if chosen == "poll" else {})
    pooled = make_url(request.getfixturevalue("pooler")).set(database=make_url(database_url).database)
    option = {"poll": POLL_SECONDS} if chosen == "pgbouncer-poll" else {"listen_url": database_url}
    return {"url": pooled.render_as_string(), **option}


@pytest.fixture(params=["in_memory", "postgres"])
def new_layer(request: pytest.FixtureRequest) -> LayerFactory:
    """The class under test."""
    if request.param == "in_memory":
        return InMemoryChannelLayer
    return partial(PostgresChannelLayer, **request.getfixturevalue("way"))


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
async def postgres_layer(way: dict[str, Any]) -> AsyncIterator[PostgresChannelLayer]:
    """Our layer, for what the oracle does not do."""
    layer = PostgresChannelLayer(**way)
    yield layer
    await layer.close()


@pytest.fixture
async def other_node(way: dict[str, Any]) -> AsyncIterator[PostgresChannelLayer]:
    """Our layer once more on the same database, as another process would have it."""
    layer = PostgresChannelLayer(**way)
    yield layer
    await layer.close()


@pytest.fixture(params=["work_queue", "own_channel"])
async def channel(request: pytest.FixtureRequest, channel_layer: AnyLayer) -> str:
    """A channel of either kind: one that any process may read, and one of this process."""
    return "work_queue" if request.param == "work_queue" else await channel_layer.new_channel()
