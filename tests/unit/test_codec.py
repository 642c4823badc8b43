"""Payloads and their bytes."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgchannels import InvalidMessage, MessageTooLarge, UnreadableMessage
from pgchannels.codec import Codec, serialization

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=50)
)
payloads = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
codecs = st.sampled_from([Codec(), Codec(["secret"]), Codec([b"new", "old"])])


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
        Codec().open(sealed, bound_to="topic")
    with pytest.raises(UnreadableMessage, match="is not encrypted"):
        Codec(["new"]).open(Codec().encode("forged", bound_to="topic"), bound_to="topic")


def test_tuples_come_back_as_lists() -> None:
    codec = Codec()
    assert codec.decode(codec.encode({"point": (1, 2)}, bound_to="")) == {"point": [1, 2]}


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
        ({"a": {1, 2}}, r"message\['a'\] is a set"),
        (_cycle(), "nested more than 200 deep"),
    ],
)
def test_refused_payload_is_told_where_the_trouble_is(payload: Any, text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        Codec().encode(payload, bound_to="")


def test_too_large_payload_is_refused_with_both_sizes() -> None:
    payload = b"x" * serialization.LARGEST_MESSAGE_BYTES
    with pytest.raises(MessageTooLarge, match="67,108,869 bytes, 67,108,864 are the most"):
        Codec().encode(payload, bound_to="")
