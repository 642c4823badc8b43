"""What the tests start with: a cluster with the schema, whole before each of them."""

import asyncio
from collections.abc import Iterator

import pytest

from pgchannels.database import migrations
from tests.support.patroni import PatroniCluster


@pytest.fixture(scope="module")
def prepared() -> Iterator[PatroniCluster]:
    """One cluster for the tests of a module."""
    with PatroniCluster() as cluster:
        asyncio.run(migrations.upgrade(cluster.url()))
        yield cluster


@pytest.fixture
def cluster(prepared: PatroniCluster) -> PatroniCluster:
    """The cluster with all its nodes."""
    prepared.wait_until_whole()
    return prepared
