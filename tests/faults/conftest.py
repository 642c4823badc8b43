"""What the tests of failover start with."""

import asyncio
from collections.abc import Iterator

import pytest

from pgchannels.database import migrations
from tests.faults.cluster import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A pair with the schema on both."""
    with Cluster() as cluster:
        asyncio.run(migrations.upgrade(cluster.primary.url()))
        # Without one since its creation, an unlogged sequence is broken on a standby that PostgreSQL 15.18 promotes.
        asyncio.run(cluster.checkpoint())
        yield cluster
