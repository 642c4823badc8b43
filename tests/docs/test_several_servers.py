"""The page on several servers: `several-servers`."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from pgchannels import MessageLayer
from pgchannels.django import PostgresChannelLayer
from tests.conftest import new_database
from tests.support.snippets import snippet
from tests.support.waiting import within

PAGE = "docs/how-to/several-servers.md"


@pytest.fixture
def second_url(server_url: str, template_name: str) -> Iterator[str]:
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield url


async def test_layer_of_the_page(database_url: str, second_url: str) -> None:
    text = snippet(PAGE, "pinned=")
    for url, own in (
        ("postgresql://user:password@db1/messages", database_url),
        ("postgresql://user:password@db2,db2-standby/messages", second_url),
    ):
        assert url in text
        text = text.replace(url, own)
    names: dict[str, Any] = {}
    exec(text, names)
    layer: MessageLayer = names["layer"]
    async with layer, layer.subscribe("orders.7") as subscription:
        position = await layer.publish("orders.7", "paid")
        assert (await within(anext(subscription))).position == position
        assert position.server == "a"


def test_settings_of_the_page() -> None:
    names: dict[str, Any] = {}
    exec(snippet(PAGE, "CHANNEL_LAYERS"), names)
    config = names["CHANNEL_LAYERS"]["default"]["CONFIG"]
    assert list(config) == ["databases"]
    assert "databases" in inspect.signature(PostgresChannelLayer).parameters
