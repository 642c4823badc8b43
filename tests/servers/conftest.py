"""Two servers: two databases, since only some tests need two PostgreSQL servers."""

from collections.abc import AsyncIterator, Iterator

import pytest

from pgchannels import MessageLayer
from tests.conftest import new_database


@pytest.fixture
def urls(server_url: str, template_name: str) -> Iterator[dict[str, str]]:
    """Two servers with the schema, by their names."""
    with (
        new_database(server_url, f'TEMPLATE "{template_name}"') as a,
        new_database(server_url, f'TEMPLATE "{template_name}"') as b,
    ):
        yield {"a": a, "b": b}


@pytest.fixture
async def layer(urls: dict[str, str]) -> AsyncIterator[MessageLayer]:
    """An open layer on both."""
    async with MessageLayer(urls) as layer:
        yield layer


@pytest.fixture
async def other(urls: dict[str, str]) -> AsyncIterator[MessageLayer]:
    """The same as another process would have it."""
    async with MessageLayer(urls) as layer:
        yield layer
