"""Options and names: what is refused, and that the text names it."""

from enum import StrEnum
from typing import Any, Final

import pytest

from pgchannels import ConfigurationError, InvalidName, MessageLayer
from pgchannels.options import Options
from tests.unit.odd_values import BROKEN, UNHASHABLE, Claims, subclass

BROKEN_TEXT: Final = subclass(str, BROKEN, UNHASHABLE)


class Format(StrEnum):
    """A project's own names."""

    JSON = "json"


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
        ("symmetric_encryption_keys", ["good", "\ud800"]),
        ("symmetric_encryption_keys", ["good", b""]),
        ("symmetric_encryption_keys", ["good", Claims()]),
        ("symmetric_encryption_keys", [BROKEN_TEXT("\udfff")]),
        pytest.param("serializer_format", BROKEN_TEXT("msgpack"), id="broken msgpack"),
        pytest.param("serializer_format", BROKEN_TEXT("yaml"), id="broken yaml"),
        ("send_timeout", 0),
        ("connections", 1),
        ("connections", True),
        ("connections", 2.0),
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


def test_impossible_way_of_a_full_subscription_is_named() -> None:
    values: list[Any] = [BROKEN_TEXT("fail"), BROKEN_TEXT("other"), "other", None, 5]
    for value in values:
        with pytest.raises(ConfigurationError, match="when_full must be one of"):
            MessageLayer("postgresql://localhost/db").subscribe("topic", when_full=value)


def test_text_of_an_enum_is_the_text_itself() -> None:
    assert type(Options(serializer_format=Format.JSON).serializer_format) is str


def test_key_is_never_in_an_error() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Options(symmetric_encryption_keys=["hunter2\ud800"])
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "hunter2" not in str(caught.value)


def test_key_of_a_subclass_is_its_text() -> None:
    assert Options(symmetric_encryption_keys=[BROKEN_TEXT("key"), "key"]).symmetric_encryption_keys == (b"key", b"key")
