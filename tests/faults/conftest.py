"""What the tests of faults start with."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from pgchannels import MessageLayer
from pgchannels.database import migrations
from tests.faults.cluster import Cluster
from tests.support.proxy import Proxy


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A pair with the schema on both."""
    with Cluster() as cluster:
        asyncio.run(migrations.upgrade(cluster.primary.url()))
        # Without one since its creation, an unlogged sequence is broken on a standby that PostgreSQL 15.18 promotes.
        asyncio.run(cluster.checkpoint())
        yield cluster


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    """A proxy before the database of the test."""
    async with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture
async def behind(proxy: Proxy) -> AsyncIterator[MessageLayer]:
    """A layer behind the proxy, which beats only when it is told to."""
    async with MessageLayer(proxy.url, heartbeat=3600) as layer:
        yield layer
        proxy.restore()
