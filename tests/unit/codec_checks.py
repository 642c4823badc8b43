"""Checks of the codec that could crash or block the process or fill its memory; `test_codec_checks` runs them."""

import contextlib
import json
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgchannels import InvalidMessage, UnreadableMessage
from pgchannels.codec import Codec
from tests.unit.odd_values import CARRIED, NOT_IN_JSON, ORDINARY, REFUSED

FORMATS: Final = ("msgpack", "json")
CODECS: Final = tuple(Codec(keys, serializer_format=name) for name in FORMATS for keys in ((), ("secret",)))
DEEPEST: Final = 200
MOST_MEGABYTES: Final = 700  # a payload of 4 MB takes some 200
thorough = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def canonical(value: Any) -> Any:
    """What tells two values apart that may be equal, or have no equality; of types that arrive alone."""
    kind = type(value)
    if kind is dict:
        return kind, frozenset((key, canonical(item)) for key, item in value.items())
    if kind in (list, tuple):
        return kind, tuple(map(canonical, value))
    if kind in (set, frozenset):
        return kind, frozenset(map(canonical, value))
    if kind is Decimal:
        return kind, value.as_tuple()
    if isinstance(value, date):
        return isinstance(value, datetime), value.isoformat()
    assert value is None or kind in (bool, int, float, str, bytes, UUID), kind
    return kind, repr(value)


def through(codec: Codec, payload: Any) -> Any:
    """What a receiver gets."""
    return codec.decode(codec.open(codec.encode(payload, bound_to="topic"), bound_to="topic"))


def refusal(codec: Codec, payload: Any) -> str:
    """What the error says."""
    try:
        codec.encode(payload, bound_to="topic")
    except InvalidMessage as error:
        return str(error)
    raise AssertionError(f"{type(payload)} is carried")


# What can be sent.

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(max_size=50)
    | st.uuids()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.dates()
    | st.decimals(allow_nan=True, allow_infinity=True)
)
# Each is a pair: what is sent, and what arrives.
leaves = scalars.map(lambda value: (value, value)) | st.integers(0, len(CARRIED) - 1).map(
    lambda number: CARRIED[number]
)


def within_containers(pairs: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Pairs of containers of pairs."""
    lists = st.lists(pairs, max_size=4)
    dicts = st.dictionaries(st.text() | st.sampled_from(["$", "$uuid", "$$set"]), pairs, max_size=4)
    return (
        lists.map(lambda items: ([sent for sent, _ in items], [arrives for _, arrives in items]))
        | lists.map(lambda items: (tuple(sent for sent, _ in items), [arrives for _, arrives in items]))
        | dicts.map(lambda items: tuple({key: pair[side] for key, pair in items.items()} for side in (0, 1)))
    )


payloads = st.recursive(leaves, within_containers, max_leaves=12)


@thorough
@given(payloads, st.sampled_from(CODECS))
def what_is_sent_arrives(pair: tuple[Any, Any], codec: Codec) -> None:
    sent, arrives = pair
    assert canonical(through(codec, sent)) == canonical(arrives)


def each_odd_value_arrives() -> None:
    for codec in CODECS:
        for sent, arrives in CARRIED:
            for wrap in (lambda value: value, lambda value: [value], lambda value: {"key": {"$set": value}}):
                assert canonical(through(codec, wrap(sent))) == canonical(wrap(arrives)), (type(sent), arrives)


def each_refused_value_is_named_with_its_place() -> None:
    for codec in CODECS:
        for value in REFUSED:
            assert refusal(codec, value).startswith("message")
            assert refusal(codec, {"a": [0, {"b": value}]}).startswith("message['a'][1]['b']"), type(value)
            assert refusal(codec, [Decimal(1), ("x", value)]).startswith("message[1][1]"), type(value)


def json_refuses_what_it_does_not_have() -> None:
    for codec in CODECS:
        for value in NOT_IN_JSON:
            payload = {"a": [0, value]}
            if codec in CODECS[:2]:
                assert canonical(through(codec, payload)) == canonical({"a": [0, float(float.__float__(value))]})
            else:
                assert refusal(codec, payload).startswith("message['a'][1] is ")


CONTAINERS: Final[dict[str, Callable[[Any], Any]]] = {
    "list": lambda inner: [inner],
    "dict": lambda inner: {"a": inner},
    "dict like a box": lambda inner: {"$set": inner},
    "tuple": lambda inner: (inner,),
    "frozenset": lambda inner: frozenset([inner]),
    "tuple among others": lambda inner: (0, inner, "x"),
}
HASHABLE: Final = ("tuple", "frozenset", "tuple among others")


def nested(kinds: list[str], value: Any = 1) -> Any:
    """A value inside containers, the last outermost."""
    for kind in kinds:
        value = CONTAINERS[kind](value)
    return value


def two_hundred_levels_arrive_and_one_more_is_refused() -> None:
    source = random.Random(5)
    plans = [[kind] * DEEPEST for kind in CONTAINERS]
    plans += [source.choices(HASHABLE, k=DEEPEST) for _ in range(5)]
    plans += [["frozenset", "tuple"] * 50 + source.choices(("list", "dict", "tuple"), k=100) for _ in range(3)]
    for plan in plans:
        for codec in CODECS:
            for leaf in (1, UUID(int=5)):
                sent = nested(plan, leaf)
                arrived = through(codec, sent)
                require_safe(arrived)
                assert canonical(through(codec, arrived)) == canonical(arrived)
                assert "nested more than 200 deep" in refusal(codec, CONTAINERS[plan[-1]](sent))
                assert "nested more than 200 deep" in refusal(codec, {"a": [CONTAINERS[plan[-1]](sent)]})


def any_depth_is_refused_at_once() -> None:
    for kind in CONTAINERS:
        for depth in (300, 511, 513, 1_000, 1_100, 20_000):
            for codec in CODECS:
                assert "nested" in refusal(codec, nested([kind] * depth))


# What can be read.


def require_safe(value: Any) -> None:
    """Whatever a receiver does with it works."""
    assert repr(value)
    canonical(value)
    same = Codec().decode(Codec().encode(value, bound_to="topic"))
    assert canonical(same) == canonical(value)
    with contextlib.suppress(ArithmeticError):  # a signalling NaN has no equality
        assert (value == same) in (True, False)
    with contextlib.suppress(TypeError):
        hash(value)


def read(envelope: bytes) -> bool:
    """Whether stored bytes are a message; what they are is safe."""
    try:
        value = Codec().decode(envelope)
    except UnreadableMessage:
        return False
    require_safe(value)
    return True


def item(code: int, content: bytes) -> bytes:
    """An extension type of msgpack."""
    return b"\xc9" + len(content).to_bytes(4) + bytes([code]) + content


def wrapped(depth: int, before: bytes, after: bytes = b"", inner: bytes = b"\x01") -> bytes:
    """The same around it again and again."""
    return before * depth + inner + after * depth


def packed_sets(depth: int, beside: bytes = b"") -> bytes:
    """Sets in each other, and something beside each."""
    head = b"\x92" if beside else b"\x91"
    sizes = range((7 + len(beside)) * depth - 5, 1, -7 - len(beside))
    return b"".join(b"\xc9" + size.to_bytes(4) + b"\5" + head for size in sizes) + b"\1" + beside * depth


def hostile_msgpack() -> Iterator[bytes]:
    """The contents of envelopes."""
    for depth in (201, 255, 500, 1_022, 1_023, 1_024, 1_025, 2_000, 100_000, 1_000_000):
        heads = (b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\xdd\0\0\0\1")
        yield from (wrapped(depth, head) for head in heads)
        yield item(5, wrapped(depth, b"\x91"))
        yield item(5, b"\x91" + wrapped(depth, b"\x81\xa1a"))
        yield wrapped(depth, b"\x92\x90") + item(5, b"\x90")
    yield packed_sets(1_000_000)
    for depth in (201, 500, 2_000):
        yield packed_sets(depth)
        yield packed_sets(depth, beside=wrapped(150, b"\x91"))
        yield wrapped(190, b"\x91", inner=packed_sets(depth % 200 + 11))
    for head in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"):
        for size in (2**32 - 1, 2**31, 2**24, 4_000_000):
            declared = head + size.to_bytes(4)
            yield from (declared, declared + b"\x05", declared * 1_000, item(5, declared), item(5, declared * 500))
    for count in (1_000, 60_000, 4_000_000):  # as many as there are bytes, so that no length alone is too great
        yield (b"\xdd" + count.to_bytes(4)) * 1_000 + bytes(count)
        yield item(5, (b"\xdd" + count.to_bytes(4)) * 1_000 + bytes(count))
    yield from (b"\x81\xc4\x01a\x01", b"\x81\x01\x02", b"\xc1", b"\x81\xc0\xc0", b"\x81" + b"\xc4\x01a" + b"\x91" * 201)
    yield from (
        item(code, content) for code in (0, 1, 2, 3, 4, 5, 6, 127, 128, 255) for content in (b"", b"x", bytes(8))
    )
    yield from (item(255, bytes([255]) * size) for size in (4, 8, 12))  # a moment of msgpack's own
    no_sets = (b"\x81\x01\x02", b"\xa3abc", b"\x91\x80", b"\x01", b"\x91\x91\x80", b"\xc0", b"", b"\x91", b"\x90\x90")
    yield from (item(5, content) for content in no_sets)
    yield from (item(4, text) for text in (b"sNaN", b"9" * 1_000_000, b"1e" + b"9" * 1_000, b"1e999999999999999999"))
    yield item(5, b"\x92" + item(4, b"sNaN") + b"\x01")
    colliding = b"".join(item(1, b"%032x" % ((2**61 - 1) * number)) for number in range(20_000))
    yield item(5, b"\xdd" + (20_000).to_bytes(4) + colliding)


def hostile_json() -> Iterator[bytes]:
    """The contents of envelopes."""
    for depth in (201, 402, 403, 900, 1_100, 100_000, 2_000_000):
        yield from (wrapped(depth, b"[", b"]", b"1"), wrapped(depth, b"["), wrapped(depth, b'{"a":', b"}", b"1"))
        yield wrapped(depth, b'{"$set":[', b"]}", b"1")
        yield wrapped(depth, b'{"$$set":[', b"]}", b"1")
        yield wrapped(depth, b'["\\"]",', b"]", b"1")
        yield wrapped(depth, b'["\\\\",', b"]", b"1")
        yield b'{"$set":[' + wrapped(depth, b"[", b"]", b"1") + b"]}"
        yield b'"' + b"[" * depth
        for text in (rb'"\\"', rb'"\""', rb'"\\\""', b'"["', b'"]"'):  # before which brackets may seem to be text
            yield b"[" + text + b"," + wrapped(depth, b"[", b"]", b"1") + b"]"
    for digits in (20, 30, 4_000, 5_000, 3_000_000):
        yield from (b"9" * digits, b"-" + b"9" * digits, b"[0." + b"3" * digits + b"]", b"1e" + b"9" * digits)
        yield b'{"$decimal":' + b"9" * digits + b"}"
    for box in (b"uuid", b"datetime", b"date", b"decimal", b"bytes", b"set"):
        for content in (
            b"1",
            b"null",
            b"true",
            b'""',
            b'"abc"',
            b"[]",
            b"[[]]",
            b"{}",
            b'{"a":1}',
            b"1.5",
            b"[0,[1],2]",
        ):
            yield b'{"$' + box + b'":' + content + b"}"
            yield b'{"$set":[{"$' + box + b'":' + content + b"}]}"
    yield from (b"NaN", b"[Infinity,-Infinity,1e999]", b'{"$set":[NaN,NaN]}', b'{"$set":[{}]}', b'{"$set":[[{}]]}')
    yield from (b'"\\ud800"', b'{"\\udfff":1}', b'["\\ud83d\\ude00"]', b'"\xed\xa0\x80"')
    yield from (b'{"a":1,"a":2}', b'{"$a":1,"$a":2}')
    yield from (b"", b"\xff\xfe[\0", b"\xef\xbb\xbf1", b"[1,]", b"nul", b'"' + b"\\" * 1_000_001, b'{"":')
    colliding = ",".join(f'{{"$decimal":"{(2**61 - 1) * number}"}}' for number in range(20_000))
    yield f'{{"$set":[{colliding}]}}'.encode()


def hostile_bytes_are_a_value_or_unreadable() -> None:
    for first, contents in ((b"\x01", hostile_msgpack()), (b"\x02", hostile_json())):
        for number, content in enumerate(contents):
            began = time.process_time()
            read(first + content)
            assert time.process_time() - began < 10, (first, number, content[:50])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MOST_MEGABYTES * 1024
    assert reserved_megabytes() < 3 * MOST_MEGABYTES


def reserved_megabytes() -> int:
    """The most memory that the process ever asked for, whether it used it or not; 0 where that cannot be told."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmPeak:")), 0)


def deeper(frames: int, call: Callable[[], Any]) -> Any:
    """Call with so much less room on the stack."""
    return deeper(frames - 1, call) if frames else call()


def require_refusal_at_most(codec: Codec, payload: Any) -> None:
    """With any room on the stack it is sent or refused, and what was sent is read or is unreadable."""
    envelope = codec.encode(payload, bound_to="topic")
    for frames in range(0, sys.getrecursionlimit() - 60, 3):
        with contextlib.suppress(InvalidMessage):
            deeper(frames, lambda: codec.encode(payload, bound_to="topic"))
        with contextlib.suppress(UnreadableMessage):
            deeper(frames, lambda: codec.decode(codec.open(envelope, bound_to="topic")))


def full_stack_is_an_error_of_ours() -> None:
    for codec in CODECS:
        require_refusal_at_most(codec, nested(["tuple"] * DEEPEST))
        require_refusal_at_most(codec, nested(["frozenset"] * DEEPEST))


def hostile_bytes_fit_into_a_small_stack_of_any_recursion_limit() -> None:
    sys.setrecursionlimit(1_000_000)
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    threading.stack_size(1024 * 1024)
    failures: list[BaseException] = []

    def decode() -> None:
        for first, contents in ((b"\x01", hostile_msgpack()), (b"\x02", hostile_json())):
            for content in contents:
                try:
                    Codec().decode(first + content)
                except UnreadableMessage:
                    continue
                except BaseException as error:
                    failures.append(error)

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join()
    assert not failures, failures


def deeper_than_what_is_sent_is_unreadable() -> None:
    for depth, is_readable in ((DEEPEST, True), (DEEPEST + 1, False)):
        for before, after in ((b"[", b"]"), (b'{"a":', b"}"), (b'{"$$a":', b"}"), (b'{"$set":[', b"]}")):
            assert read(b"\x02" + wrapped(depth, before, after, b"1")) is is_readable
        for before in (b"\x91", b"\x81\xa1a", b"\xdc\x00\x01"):
            assert read(b"\x01" + wrapped(depth, before)) is is_readable
            assert read(b"\x01\x92" + wrapped(depth - 1, before) + b"\xda\x10\0" + b"x" * 4096) is is_readable
        assert read(b"\x01" + packed_sets(depth)) is is_readable
        assert read(b"\x01" + wrapped(100, b"\x91", inner=packed_sets(depth - 100))) is is_readable


def everything_that_is_read_can_be_sent() -> None:
    keys_of_bytes = b"\x81\xc4\x01a\x01", b"\x91\x81\xc6\0\0\0\1a\0", b"\x82\xc4\x01a\x01\xa1b\xc5\x01\x00" + bytes(256)
    for content in keys_of_bytes:
        assert not read(b"\x01" + content)
    for content in (b"18446744073709551616", b"[-9223372036854775809]", b'["\\ud800"]', b'{"\\uDFFF":1}'):
        assert not read(b"\x02" + content)
    assert not read(b"\x01" + item(5, b"\xa3abc"))
    assert not read(b'\x02{"$set":"abc"}')
    assert read(b'\x02["\\ud83d\\ude00",18446744073709551615,-9223372036854775808,1.00000000000000000000000001]')


good = [
    Codec(serializer_format=name).encode(sent, bound_to="") for name in FORMATS for sent in (*ORDINARY, list(ORDINARY))
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A genuine envelope with some bytes changed, taken out, put in, or repeated."""
    envelope = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(envelope))), draw(st.integers(0, 8))
        replacement = draw(st.binary(max_size=8) | st.just(bytes(envelope[:at])))
        envelope[at : at + length] = replacement
    return bytes(envelope)


first_bytes = st.sampled_from([b"\1", b"\2", b"\3", b"\4", b"\4\7pickled"])


@thorough
@given(mutated() | st.builds(lambda first, content: first + content, first_bytes, st.binary(max_size=500)))
def any_bytes_are_a_value_or_unreadable(envelope: bytes) -> None:
    with contextlib.suppress(UnreadableMessage):
        require_safe_outcome(Codec().decode(envelope))
    with contextlib.suppress(UnreadableMessage):
        Codec(["secret"]).decode(Codec(["secret"]).open(envelope, bound_to="topic"))


def require_safe_outcome(value: Any) -> None:
    """A dict with the key b"" is the one thing that is read and cannot be sent."""
    assert repr(value)
    with contextlib.suppress(InvalidMessage):
        require_safe(value)


box_keys = st.sampled_from(["$uuid", "$datetime", "$date", "$decimal", "$bytes", "$set", "$$set", "$"])
foreign = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.binary() | st.integers() | box_keys, inner, max_size=2)
    ),
    max_leaves=30,
)


@thorough
@given(foreign, st.just(5) | st.integers(0, 127))
def other_libraries_messages_are_a_value_or_unreadable(value: Any, code: int) -> None:
    with contextlib.suppress(OverflowError):
        packed = msgpack.packb(value)
        inner = msgpack.packb([value, msgpack.ExtType(code, packed)])
        any_outcome(b"\1" + packed)
        any_outcome(b"\1" + inner)
        any_outcome(b"\1" + msgpack.packb(msgpack.ExtType(5, inner)))
    with contextlib.suppress(TypeError):
        any_outcome(b"\2" + json.dumps(value).encode())


def any_outcome(envelope: bytes) -> None:
    """A value or `UnreadableMessage`."""
    with contextlib.suppress(UnreadableMessage):
        require_safe_outcome(Codec().decode(envelope))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
