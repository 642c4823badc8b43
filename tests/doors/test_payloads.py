"""Payloads of any type: each is carried as its value, or refused with its place; in time, and by both formats alike."""

import builtins
import importlib
import json
import signal
import tracemalloc
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NoReturn

import asyncpg
import numpy as np
import pytest
from django.db.models import IntegerChoices, TextChoices
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject, lazystr
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy
from pydantic import BaseModel

from pgchannels import ConfigurationError, InvalidMessage, MessageLayer, MessageTooLarge
from pgchannels.codec import LARGEST_MESSAGE_BYTES, Codec
from pgchannels.django import PostgresChannelLayer
from pgchannels.serializers import registry

FORMATS: Final = ("msgpack", "json")
LIMIT_SECONDS: Final = 5


class Level(IntEnum):
    """A number."""

    HIGH = 3


class Word(StrEnum):
    """A text."""

    HI = "hi"


class Size(IntegerChoices):
    """A number, as Django's models have it."""

    LARGE = 7


class Colour(TextChoices):
    """A text, as Django's models have it."""

    RED = "r", "Red"


class Model(BaseModel):
    """What FastAPI's users have."""

    text: str


@dataclass
class Point:
    """What is no dict."""

    x: int


@contextmanager
def limited() -> Iterator[None]:
    """Fail what takes too long."""

    def fail(*_: object) -> NoReturn:
        pytest.fail(f"it takes more than {LIMIT_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def through(payload: Any, serializer_format: str, **options: Any) -> Any:
    """What a receiver gets."""
    codec = Codec(serializer_format=serializer_format, **options)
    with limited():
        return codec.decode(codec.encode(payload, bound_to="topic"))


def refusal(payload: Any, serializer_format: str, **options: Any) -> str:
    """What the error says."""
    with pytest.raises(InvalidMessage) as caught:
        through(payload, serializer_format, **options)
    return str(caught.value)


CARRIED: Final[dict[str, tuple[Any, Any]]] = {
    "IntEnum": (Level.HIGH, 3),
    "StrEnum": (Word.HI, "hi"),
    "IntegerChoices": (Size.LARGE, 7),
    "TextChoices": (Colour.RED, "r"),
    "HTTPStatus": (HTTPStatus.NOT_FOUND, 404),
    "signal": (signal.SIGINT, 2),
    "OrderedDict": (OrderedDict(a=1), {"a": 1}),
    "defaultdict": (defaultdict(list, a=[1]), {"a": [1]}),
    "SafeString": (SafeString("<b>"), "<b>"),
    "MultiValueDict": (MultiValueDict({"a": ["1", "2"]}), {"a": ["1", "2"]}),
    "bytearray": (bytearray(b"x"), b"x"),
    "memoryview": (memoryview(b"x"), b"x"),
    "numpy float64": (np.float64(1.5), 1.5),  # a float
    "numpy str": (np.str_("a"), "a"),
    "numpy bytes": (np.bytes_(b"a"), b"a"),
}
REFUSED: Final[dict[str, Any]] = {
    "lazy text": gettext_lazy("x"),
    "lazy object": SimpleLazyObject(lambda: "x"),
    "model": Model(text="x"),
    "dataclass": Point(1),
    "timedelta": timedelta(1),
    "complex": 1j,
    "numpy int64": np.int64(1),
    "numpy bool": np.bool_(True),
    "numpy datetime64": np.datetime64("2026-01-01"),
    "numpy array": np.zeros(2),
    "path": Path("/"),
    "exception": ValueError("x"),
    "coroutine function": AsyncIterator,
    "int key": {1: "x"},
    "enum key": {Level.HIGH: "x"},
    "too large": Level.HIGH + 2**64,
}


@pytest.mark.parametrize("serializer_format", FORMATS)
@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("is_beside_a_refused_one", [False, True])
def test_value_of_a_subclass_is_carried_as_what_it_is(
    name: str, serializer_format: str, *, is_beside_a_refused_one: bool
) -> None:
    value, received = CARRIED[name]
    if is_beside_a_refused_one:
        assert "message['bad'] is a object: " in refusal({"good": value, "bad": object()}, serializer_format)
    else:
        came = through({"value": [value]}, serializer_format)
        assert came == {"value": [received]}
        assert type(came["value"][0]) is type(received)


@pytest.mark.parametrize("serializer_format", FORMATS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_message_carries_is_refused_with_its_place_and_the_way_out(name: str, serializer_format: str) -> None:
    text = refusal({"rows": [1, {"value": REFUSED[name]}]}, serializer_format)
    assert text.startswith("message['rows'][1]['value'")
    assert "Send " in text or "send it as " in text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), np.float64("nan")])
def test_json_never_writes_what_jsonb_refuses(number: float) -> None:
    assert "which JSON does not have" in refusal({"number": number}, "json")


@pytest.mark.parametrize("payload", [{"a": 1.5, "b": ["é", b"x", Decimal("NaN")]}, "\U0001f600", [2**64 - 1, -0.0]])
def test_json_is_strict(payload: Any) -> None:
    def fail(constant: str) -> NoReturn:
        pytest.fail(f"JSON has no {constant}")

    json.loads(Codec(serializer_format="json").encode(payload, bound_to="")[1:], parse_constant=fail)


# Sizes.


def shared(levels: int, innermost: Any = 1, kind: Any = list) -> Any:
    """Containers that each hold the next one twice."""
    for _ in range(levels):
        innermost = kind([innermost, innermost])
    return innermost


class Chained:
    """What no message carries; it leads to another."""

    def __init__(self, following: Any = None) -> None:
        self.following = following


class Members(tuple[Any, ...]):
    """A tuple whose hash takes no time."""

    __hash__ = object.__hash__


class Text(str):
    """A text."""


def chain(links: int) -> Any:
    """Values that each lead to the next one."""
    following: Any = None
    for _ in range(links):
        following = Chained(following)
    return following


def twice(value: Any) -> Any:
    """A `default` that makes two of one."""
    return {"a": value.following, "b": value.following} if isinstance(value, Chained) else None


BIG: Final = "x" * 2**20
TOO_LARGE: Final[dict[str, tuple[Any, Any]]] = {
    "shared lists": (shared(60), None),
    "shared beside a refused value": ({"a": shared(60), "b": object()}, None),
    "shared beside a lazy object": ({"y": shared(40), "x": SimpleLazyObject(dict)}, str),
    "shared lists of a subclass": (shared(60, kind=type("Odd", (list,), {})), None),
    "shared tuples in a set": ({shared(60, kind=Members)}, None),
    "a list many times": ([[None] * 1000] * 70_000, None),
    "a list many times at each depth": (shared(100, [None] * 100_000), None),
    "made by default": (chain(30), twice),
    "lists made by default": ([Chained() for _ in range(100)], lambda _: shared(40)),
    "a text many times": ([BIG] * 2000, None),
    "a text under many keys": ({str(number): BIG for number in range(2000)}, None),
    "a text in nested dicts": ([{"a": {"b": BIG}} for _ in range(2000)], None),
    "bytes many times": ([BIG.encode()] * 2000, None),
    "a bytearray many times": ([bytearray(2**20)] * 2000, None),
    "a memoryview many times": ([memoryview(bytes(2**20)).cast("Q")] * 2000, None),
    "a text of a subclass many times": ([Text(BIG)] * 2000, None),
    "a Decimal many times": ([Decimal("9" * 2**16)] * 2000, None),
    "a key many times": ([{BIG: 1} for _ in range(2000)], None),
    "a key of a subclass many times": ([{Text(BIG): 1} for _ in range(200)], None),
    "texts made by default": ([Chained() for _ in range(2000)], lambda _: BIG),
}


@pytest.mark.parametrize("serializer_format", FORMATS)
@pytest.mark.parametrize("name", TOO_LARGE)
def test_payload_that_cannot_fit_is_refused_before_it_is_packed(name: str, serializer_format: str) -> None:
    payload, default = TOO_LARGE[name]
    codec = Codec(serializer_format=serializer_format, default=default)
    tracemalloc.start()
    try:
        with limited(), pytest.raises(MessageTooLarge, match="takes more than 67,108,864 bytes: send it in parts"):
            codec.encode(payload, bound_to="")
        assert tracemalloc.get_traced_memory()[1] < 4 * LARGEST_MESSAGE_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("serializer_format", FORMATS)
def test_payload_that_holds_itself_is_refused_at_once_with_its_place(serializer_format: str) -> None:
    itself: list[Any] = [None] * 100_000
    itself.append(itself)
    for payload in ({"y": shared(40), "x": itself}, {"x": itself, "y": shared(40)}, {"x": itself, "y": object()}):
        with limited(), pytest.raises((InvalidMessage, MessageTooLarge), match=r"^message\['x'\]|takes more than"):
            Codec(serializer_format=serializer_format).encode(payload, bound_to="")
    assert refusal({"x": itself}, serializer_format).startswith("message['x'][100000] is nested more than 200 deep")


@pytest.mark.parametrize("serializer_format", FORMATS)
def test_shared_container_arrives_at_each_of_its_places(serializer_format: str) -> None:
    few = [[1, 2]] * 3
    assert through([few, few], serializer_format) == [few, few]
    both = (1, frozenset({2}))
    assert through([both, {both}, frozenset({both})], serializer_format) == [[1, {2}], {both}, {both}]
    point = Point(1)
    assert through([point, point], serializer_format, default=lambda _: [[]]) == [[[]], [[]]]


@pytest.mark.parametrize("serializer_format", FORMATS)
def test_shared_container_is_refused_where_it_is_too_deep(serializer_format: str) -> None:
    deep: Any = [1]
    for _ in range(149):
        deep = [deep]
    assert through([deep, shared(2, deep)], serializer_format) == [deep, shared(2, deep)]
    deeper = deep
    for _ in range(50):
        deeper = [deeper]
    for payload in ([deep, deeper], [deeper, deep]):
        assert "nested more than 200 deep" in refusal(payload, serializer_format)


def test_error_about_a_key_or_of_default_is_short_whatever_they_share() -> None:
    key: Any = frozenset()
    for _ in range(60):
        key = frozenset([key, (key,)])

    class WithoutArgumentsError(Exception):
        args: Any = property(lambda _: [][0])

    def fail(_: Any) -> NoReturn:
        raise ValueError("of", ValueError(shared(60)), shared(60))

    def fail_twice(_: Any) -> NoReturn:
        raise WithoutArgumentsError("text")

    assert "has the key …, a frozenset: keys are str" in refusal({key: 1}, "msgpack")
    assert "has the key (1, 'a'), a tuple: keys are str" in refusal({(1, "a"): 1}, "msgpack")
    assert "`default` raised ValueError('of', …, …)" in refusal(object(), "msgpack", default=fail)
    assert "`default` raised WithoutArgumentsError('text')" in refusal(object(), "msgpack", default=fail_twice)


# Every type.


def values_of(kind: type) -> Iterator[Any]:
    """The type itself, and what it makes of nothing, of a number and of a text, as far as it does at once."""
    yield kind
    if issubclass(kind, BaseException | type | asyncpg.Connection):  # its `__del__` wants more
        return
    some: tuple[tuple[Any, ...], ...] = ((), (1,), ("1",), ([],))
    for arguments in some:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield kind(*arguments)
        except BaseException:
            continue


def types() -> list[type]:
    """Types that hold values: those of many modules, of Python itself, of numpy, Django and pydantic."""
    namespaces = [builtins, np, *map(importlib.import_module, DATA_MODULES)]
    found = {kind for space in namespaces for kind in vars(space).values() if isinstance(kind, type)}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


DATA_MODULES: Final = (
    *("array", "ast", "collections", "collections.abc", "configparser", "contextvars", "ctypes", "dataclasses"),
    *("datetime", "decimal", "email.message", "enum", "fractions", "functools", "graphlib", "hashlib", "http.cookies"),
    *(
        "ipaddress",
        "itertools",
        "json",
        "numbers",
        "operator",
        "pathlib",
        "queue",
        "random",
        "re",
        "statistics",
        "string",
    ),
    *("time", "types", "typing", "uuid", "weakref", "xml.etree.ElementTree", "zoneinfo"),
    *("django.utils.datastructures", "django.utils.functional", "django.utils.safestring", "django.db.models"),
    *("django.http", "pydantic", "asyncpg", "asyncpg.types", "sqlalchemy", "msgpack", "starlette.datastructures"),
)


@pytest.mark.parametrize("serializer_format", FORMATS)
def test_value_of_any_type_is_carried_or_refused_in_time(serializer_format: str) -> None:
    counts = {True: 0, False: 0}
    for kind in types():
        for value in values_of(kind):
            for payload in (value, {"a": [value]}):
                try:
                    came = through(payload, serializer_format)
                except InvalidMessage:
                    counts[False] += 1
                else:
                    assert through(came, serializer_format) == came or came != came
                    counts[True] += 1
    assert counts[True] > 100
    assert counts[False] > 1000


# A fallback.


def test_default_puts_something_in_the_place_of_what_is_not_carried() -> None:
    payload = {"a": [Point(1), {"b": lazystr("x")}], "c": 1.5}
    for serializer_format in FORMATS:
        assert through(payload, serializer_format, default=str) == {"a": ["Point(x=1)", {"b": "x"}], "c": 1.5}


@pytest.mark.parametrize("serializer_format", FORMATS)
def test_default_may_return_what_needs_it_again(serializer_format: str) -> None:
    def replaced(value: Any) -> Any:
        return [Path("/")] if isinstance(value, Point) else str(value)

    assert through({"a": Point(1)}, serializer_format, default=replaced) == {"a": ["/"]}


@pytest.mark.parametrize("serializer_format", FORMATS)
def test_default_that_does_not_help_is_refused_with_the_place(serializer_format: str) -> None:
    assert "nested more than 200 deep" in refusal([object()], serializer_format, default=lambda value: value)
    assert "nested more than 200 deep" in refusal([object()], serializer_format, default=lambda value: [value])
    text = refusal({"a": Point(1)}, serializer_format, default=lambda value: value.y)
    assert text.startswith("message['a'] is a Point, for which `default` raised AttributeError(")
    assert "integer of more than 64 bits" in refusal(object(), serializer_format, default=lambda _: 2**64)


async def test_default_of_a_layer_is_for_all_that_it_sends(database_url: str) -> None:
    async with MessageLayer(database_url, default=str) as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", {"at": Path("/a")})
        await layer.publish_many([("room", Path("/b"))])
        assert [(await anext(subscription)).payload for _ in range(2)] == [{"at": "/a"}, "/b"]
        channel = await layer.new_channel()
        await layer.send(channel, [Path("/c")])
        assert await layer.receive(channel) == ["/c"]


async def test_default_of_the_channel_layer_is_a_function_or_its_dotted_path(database_url: str) -> None:
    for default in (str, "builtins.str", f"{__name__}.shown"):
        layer = PostgresChannelLayer(database_url, default=default)
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "x", "path": Path("/")})
        assert (await layer.receive(channel))["path"] == "/"
        await layer.close()


def shown(value: object) -> str:
    """A `default` that a project's settings name."""
    return str(value)


@pytest.mark.parametrize("default", ["nowhere.function", "builtins.nothing", "str", 5, f"{__name__}.FORMATS"])
def test_default_that_is_no_function_is_refused(default: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^default"):
        PostgresChannelLayer("postgresql://localhost/db", default=default)
    if not isinstance(default, str):
        with pytest.raises(ConfigurationError, match=r"^default must be a function, or None, not 5"):
            MessageLayer("postgresql://localhost/db", default=default)


def test_default_beside_a_format_of_ones_own_is_refused() -> None:
    class Text:
        def as_bytes(self, message: Any) -> bytes:
            return str(message).encode()

        def from_bytes(self, message: bytes) -> Any:
            return message.decode()

    registry.register_serializer("text-of-doors", Text)
    with pytest.raises(ConfigurationError, match=r"^default has no use with serializer_format='text-of-doors'"):
        MessageLayer("postgresql://localhost/db", serializer_format="text-of-doors", default=str)


@pytest.mark.parametrize("made", ["text", None, 5])
def test_serializer_that_makes_no_bytes_is_named(made: Any) -> None:
    class Careless:
        def as_bytes(self, message: Any) -> Any:
            return made

        def from_bytes(self, message: bytes) -> Any:
            return message

    registry.register_serializer("careless", Careless)
    with pytest.raises(InvalidMessage, match=f"the serializer 'careless' returned {type(made).__name__} from as_bytes"):
        Codec(serializer_format="careless").encode(1, bound_to="")
