"""Options and names: what is refused, and that the text names it."""

from typing import Any

import pytest

from pgchannels import ConfigurationError, InvalidName, MessageLayer
from pgchannels.options import Options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("expiry", 0),
        ("expiry", "60"),
        ("group_expiry", -1),
        ("capacity", 0),
        ("capacity", True),
        ("channel_capacity", {"jobs*": 0}),
        ("symmetric_encryption_keys", "a single key"),
        ("send_timeout", 0),
        ("prefix", "a:b"),
        ("prefix", ""),
    ],
)
def test_impossible_option_is_named(option: str, value: Any) -> None:
    with pytest.raises((ConfigurationError, InvalidName), match=option):
        MessageLayer("postgresql://localhost/db", **{option: value})


@pytest.mark.parametrize("url", ["mysql://localhost/db", "", "localhost/db", None, 5])
def test_what_is_no_postgresql_url_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="postgresql://user:password@host"):
        MessageLayer(url)


def test_first_matching_pattern_gives_the_capacity() -> None:
    options = Options(capacity=10, channel_capacity={"jobs.*": 20, "*": 30})
    assert options.capacity_of("jobs.images") == 20
    assert options.capacity_of("other") == 30
    assert Options(capacity=10).capacity_of("other") == 10


@pytest.mark.parametrize("name", ["", "a b", "é", "a!b", "x" * 100, "a\n", None, 5])
async def test_impossible_topic_is_refused(name: Any) -> None:
    layer = MessageLayer("postgresql://localhost/db")
    with pytest.raises(InvalidName, match="is no topic"):
        await layer.publish(name, "hi")
    with pytest.raises(InvalidName, match="is no topic"):
        layer.subscribe("good", name)


@pytest.mark.parametrize("name", ["", "a b", "!a", "a!b!c", "a:b", "x" * 100, None])
async def test_impossible_channel_is_refused(name: Any) -> None:
    with pytest.raises(InvalidName, match="is no channel"):
        await MessageLayer("postgresql://localhost/db").send(name, "hi")
