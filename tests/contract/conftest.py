"""Every test here runs on Channels' own layer, which is the oracle, and on ours with one server and with two.

`PGCHANNELS_TEST_WAY` says how ours reaches its database: `poll`, `two-connections`, or through PgBouncer in transaction
mode with `pgbouncer-poll` and `pgbouncer-listen`; otherwise as usual.
"""

import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Final, Protocol

import pytest
from channels.layers import InMemoryChannelLayer
from sqlalchemy import make_url

from pgchannels.django import PostgresChannelLayer
from tests.conftest import new_database, url_of_role
from tests.support.poolers import pgbouncer

from .layers import CAPACITY, AnyLayer

POLL_SECONDS: Final = 0.05
DIRECT_WAYS: Final[dict[str, dict[str, Any]]] = {"poll": {"poll": POLL_SECONDS}, "two-connections": {"connections": 2}}


class LayerFactory(Protocol):
    """Makes a layer in which this many messages wait for one receiver at most."""

    def __call__(self, *, capacity: int) -> AnyLayer: ...


@pytest.fixture(scope="session")
def pooler(server_url: str) -> Iterator[str]:
    """The server through PgBouncer in transaction mode."""
    with pgbouncer(server_url, mode="transaction", most=3) as url:
        yield url


@pytest.fixture
def second_url(server_url: str, template_name: str, application_role: str) -> Iterator[str]:
    """Another fresh database, for a second server."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield url_of_role(url, application_role)


@pytest.fixture
def way(request: pytest.FixtureRequest, database_url: str) -> dict[str, Any]:
    """How our layer reaches its database, as its arguments."""
    return way_to(database_url, request)


def way_to(url: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """How a layer reaches a database, as its arguments."""
    chosen = os.environ.get("PGCHANNELS_TEST_WAY", "")
    if not chosen.startswith("pgbouncer"):
        return {"url": url, **DIRECT_WAYS.get(chosen, {})}
    pooled = make_url(request.getfixturevalue("pooler")).set(database=make_url(url).database)
    option = {"poll": POLL_SECONDS} if chosen == "pgbouncer-poll" else {"listen_url": url}
    return {"url": pooled.render_as_string(), **option}


def way_to_servers(urls: dict[str, str], request: pytest.FixtureRequest) -> dict[str, Any]:
    """As `way_to`, for a layer with several servers."""
    ways = {name: way_to(url, request) for name, url in urls.items()}
    options = {name: value for way in ways.values() for name, value in way.items() if name != "url"}
    if "listen_url" in options:
        pytest.skip("a layer with several servers takes no listen_url")
    return {"urls": {name: way["url"] for name, way in ways.items()}, **options}


@pytest.fixture(params=["in_memory", "postgres", "two_servers"])
def new_layer(request: pytest.FixtureRequest) -> LayerFactory:
    """The class under test."""
    if request.param == "in_memory":
        return InMemoryChannelLayer
    if request.param == "postgres":
        return partial(PostgresChannelLayer, **request.getfixturevalue("way"))
    urls = {"a": request.getfixturevalue("database_url"), "b": request.getfixturevalue("second_url")}
    return partial(PostgresChannelLayer, **way_to_servers(urls, request))


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
