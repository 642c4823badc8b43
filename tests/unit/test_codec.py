"""Payloads and their bytes."""

import contextlib
import pickle
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgchannels import ConfigurationError, InvalidMessage, MessageTooLarge, UnreadableMessage
from pgchannels.codec import LARGEST_MESSAGE_BYTES, Codec
from pgchannels.options import Options
from pgchannels.serializers import registry

offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(max_size=50)
    | st.uuids()
    | st.datetimes(timezones=st.none() | offsets)
    | st.dates()
    | st.decimals(allow_nan=False)
)
members = st.recursive(scalars, lambda inner: st.frozensets(inner) | st.tuples(inner), max_leaves=5)
keys = st.text() | st.sampled_from(["$", "$uuid", "$set", "$$set", "$bytes"])
payloads = st.recursive(
    scalars | st.sets(members, max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner),
    max_leaves=20,
)
codecs = st.sampled_from(
    [
        Codec(),
        Codec(["secret"]),
        Codec([b"new", "old"]),
        Codec(serializer_format="json"),
        Codec(["secret"], serializer_format="json"),
    ]
)


@given(codecs, payloads, st.text())
def test_payload_comes_back_as_it_was(codec: Codec, payload: Any, bound_to: str) -> None:
    envelope = codec.encode(payload, bound_to=bound_to)
    assert codec.decode(codec.open(envelope, bound_to=bound_to)) == payload


@given(st.binary(), st.sampled_from([Codec(), Codec(["secret"])]))
def test_any_other_bytes_are_unreadable_and_nothing_worse(damaged: bytes, codec: Codec) -> None:
    with contextlib.suppress(UnreadableMessage):
        codec.decode(codec.open(damaged, bound_to="topic"))


@given(payloads, st.data())
def test_changed_sealed_message_is_refused(payload: Any, data: st.DataObject) -> None:
    codec = Codec(["secret"])
    envelope = bytearray(codec.encode(payload, bound_to="topic"))
    envelope[data.draw(st.integers(0, len(envelope) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UnreadableMessage):
        codec.open(bytes(envelope), bound_to="topic")


def test_sealed_message_opens_only_where_it_was_sent_to() -> None:
    codec = Codec(["secret"])
    with pytest.raises(UnreadableMessage, match="another topic or channel"):
        codec.open(codec.encode("hi", bound_to="topic:asgi:one"), bound_to="topic:asgi:two")


def test_sealed_message_opens_with_any_of_the_keys_and_no_other() -> None:
    sealed = Codec(["old"]).encode("hi", bound_to="topic")
    rotating = Codec(["new", "old"])
    assert rotating.decode(rotating.open(sealed, bound_to="topic")) == "hi"
    with pytest.raises(UnreadableMessage, match="none of symmetric_encryption_keys"):
        Codec(["other"]).open(sealed, bound_to="topic")
    with pytest.raises(UnreadableMessage, match="no symmetric_encryption_keys are configured"):
        Codec().decode(sealed)
    with pytest.raises(UnreadableMessage, match="is not encrypted"):
        Codec(["new"]).open(Codec().encode("forged", bound_to="topic"), bound_to="topic")


def test_tuples_come_back_as_lists() -> None:
    codec = Codec()
    assert codec.decode(codec.encode({"point": (1, 2)}, bound_to="")) == {"point": [1, 2]}


class Pickled:
    """A format of one's own, with which anything can be sent."""

    def as_bytes(self, message: Any) -> bytes:
        return pickle.dumps(message)

    def from_bytes(self, message: bytes) -> Any:
        return pickle.loads(message)


def test_format_of_ones_own_carries_what_others_cannot() -> None:
    registry.register_serializer("pickled", Pickled)
    codec = Codec(["secret"], serializer_format="pickled")
    envelope = codec.encode({1: 1j}, bound_to="topic")
    assert Codec(["secret"]).decode(codec.open(envelope, bound_to="topic")) == {1: 1j}


def test_format_that_is_not_registered_here_is_unreadable_and_named() -> None:
    registry.register_serializer("pickled", Pickled)
    envelope = Codec(serializer_format="pickled").encode("hi", bound_to="")
    with pytest.raises(UnreadableMessage, match="'sealed2', which is not registered"):
        Codec().decode(envelope.replace(b"pickled", b"sealed2"))
    with pytest.raises(UnreadableMessage, match="'pickled' cannot read the message"):
        Codec().decode(envelope[:-5])


@pytest.mark.parametrize(
    ("name", "serializer", "text"),
    [("msgpack", Pickled, "not one of"), ("", Pickled, "50 ASCII"), ("half", dict, "no method as_bytes")],
)
def test_serializer_that_cannot_be_registered_says_why(name: str, serializer: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        registry.register_serializer(name, serializer)


def test_unknown_format_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match="serializer_format='yaml' is not known: it is one of msgpack, json"):
        Options(serializer_format="yaml")


class Money:
    """No message can carry it."""


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (Money(), "message is a Money"),
        ({"items": [0, {"price": Money()}]}, r"message\['items'\]\[1\]\['price'\] is a Money"),
        ({"a": {1: "x"}}, r"message\['a'\] has the key 1, a int"),
        ({"a": [2**64]}, r"message\['a'\]\[0\] is an integer of more than 64 bits"),
        ({"a": "\ud800"}, r"message\['a'\] holds half of a surrogate pair"),
        ({"\ud800": 1}, "message holds half of a surrogate pair"),
        ({"a": {("b", Money())}}, r"message\['a'\]\[0\]\[1\] is a Money"),
        (_cycle(), "nested more than 200 deep"),
    ],
)
@pytest.mark.parametrize("serializer_format", ["msgpack", "json"])
def test_refused_payload_is_told_where_the_trouble_is(payload: Any, text: str, serializer_format: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        Codec(serializer_format=serializer_format).encode(payload, bound_to="")


def test_too_large_payload_is_refused_with_both_sizes() -> None:
    payload = b"x" * LARGEST_MESSAGE_BYTES
    with pytest.raises(MessageTooLarge, match="67,108,870 bytes, 67,108,864 are the most"):
        Codec().encode(payload, bound_to="")
