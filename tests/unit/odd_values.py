"""Values of every kind that somebody may hand to `publish`, with what a message makes of them; None: it is refused."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import http
import ipaddress
import math
import pathlib
import types
import uuid
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

from msgpack import ExtType, Timestamp

MOMENT: Final = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)


def fails(*_: object, **__: object) -> NoReturn:
    """A method of a class that is broken."""
    raise RuntimeError("broken")


def endless(_: object) -> Iterator[int]:
    """What an `__iter__` may do."""
    while True:
        yield 1


METHODS: Final = (
    *("__str__", "__repr__", "__len__", "__bool__", "__format__", "__bytes__", "__int__", "__float__", "__index__"),
    *("__lt__", "__gt__", "__le__", "__ge__", "items", "keys", "values", "isoformat", "encode", "copy"),
)
BROKEN: Final[dict[str, Any]] = {**dict.fromkeys(METHODS, fails), "__iter__": endless}
UNHASHABLE: Final[dict[str, Any]] = {"__eq__": fails, "__hash__": fails}


def subclass(base: type, *bodies: dict[str, Any]) -> Any:
    """A class with methods that must not matter."""
    return type(f"Odd{base.__name__}", (base,), {name: item for body in bodies for name, item in body.items()})


class Zone(datetime.tzinfo):
    """A time zone whose offset is whatever it is given."""

    def __init__(self, offset: Any) -> None:
        self._offset = offset

    def utcoffset(self, _: object) -> Any:
        return fails() if self._offset is RuntimeError else self._offset

    def dst(self, _: object) -> None:
        return None

    def tzname(self, _: object) -> str:
        return "odd"


class Whole(enum.IntEnum):
    """A number."""

    ONE = 1


class Word(enum.StrEnum):
    """A text."""

    HI = "hi"


class OldWord(str, enum.Enum):  # noqa: UP042 -- as many write it
    """A text."""

    HI = "hi"


class Bits(enum.IntFlag):
    """A number."""

    A = 1
    B = 2


class Flag(enum.Flag):
    """No number."""

    A = 1


class Colour(enum.Enum):
    """Any values."""

    RED = "red"


class Point(NamedTuple):
    """A tuple."""

    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Record:
    """No dict."""

    x: int = 1


class Claims:
    """Says that it is a str."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return str


class UnhashableMeta(type):
    """Of classes that no table can look up."""

    __hash__ = None  # type: ignore[assignment]


class OfUnhashable(metaclass=UnhashableMeta):
    """Has a type that does not hash."""


class LyingMeta(type):
    """Of classes that seem to be lists."""

    @property
    def __mro__(cls) -> tuple[type, ...]:
        return (list, object)


class OfLyingMeta(metaclass=LyingMeta):
    """Has a type that says it is a list."""


class LyingUUID(uuid.UUID):
    """Has another number than it says."""

    def __getattribute__(self, name: str) -> Any:
        return -1 if name == "int" else super().__getattribute__(name)


class Signalling(decimal.Decimal):
    """Can be in a set, although a signalling NaN cannot."""

    __hash__ = object.__hash__


def said(base: type, name: str, value: Any) -> Any:
    """A subclass with a field that is not what it says, as `pandas.NaT` has."""
    return subclass(base, {name: property(lambda _: value)})


def released() -> memoryview:
    """A view of nothing."""
    view = memoryview(b"x")
    view.release()
    return view


def moment(offset: Any) -> datetime.datetime:
    """In an odd time zone."""
    return MOMENT.replace(tzinfo=Zone(offset))


def cycle(kind: type) -> Any:
    """A container that holds itself twice."""
    outer: Any = kind()
    if kind is dict:
        outer.update(a=outer, b=outer)
    else:
        outer.extend((outer, outer))
    return outer


def rebuilt(value: Any, *bodies: dict[str, Any]) -> Any:
    """The same value, of a subclass of its type."""
    odd = subclass(type(value), *bodies)
    if isinstance(value, uuid.UUID):
        return odd(int=value.int)
    if isinstance(value, datetime.datetime):
        return odd(*value.timetuple()[:6], value.microsecond, value.tzinfo)
    return odd(*value.timetuple()[:3]) if isinstance(value, datetime.date) else odd(value)


ORDINARY: Final[tuple[Any, ...]] = (
    1,
    -(2**63),
    2**64 - 1,
    1.5,
    "text",
    b"bytes",
    [1],
    {"a": 1},
    {1},
    uuid.UUID(int=5),
    MOMENT,
    MOMENT.date(),
    decimal.Decimal("1.50"),
)
CARRIED: Final[list[tuple[Any, Any]]] = [
    *[(rebuilt(value, body), value) for value in ORDINARY for body in ({}, BROKEN)],
    *[(rebuilt(value, BROKEN, UNHASHABLE), value) for value in ORDINARY if not isinstance(value, set)],
    (Whole.ONE, 1),
    (Word.HI, "hi"),
    (OldWord.HI, "hi"),
    (Bits.A | Bits.B, 3),
    (http.HTTPStatus.OK, 200),
    (Point(1, 2), [1, 2]),
    (ExtType(5, b"\x90"), [5, b"\x90"]),
    (frozenset({1}), {1}),
    (rebuilt(frozenset({1}), BROKEN), {1}),
    ({(1, (2,)), frozenset({frozenset({3})}), Word.HI, Whole.ONE}, {(1, (2,)), frozenset({frozenset({3})}), "hi", 1}),
    ({Word.HI: Whole.ONE}, {"hi": 1}),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (bytearray(b"x"), b"x"),
    (rebuilt(bytearray(b"x"), BROKEN), b"x"),
    (memoryview(b"abcd")[::2], b"ac"),
    ({memoryview(b"x")}, {b"x"}),
    (memoryview(array.array("h", [1, 2])), array.array("h", [1, 2]).tobytes()),
    (moment(None), MOMENT),
    (moment(datetime.timedelta(hours=1, seconds=7, microseconds=3)),) * 2,
    (moment(datetime.timedelta(seconds=-1, microseconds=-1)),) * 2,
    (datetime.datetime(2026, 1, 2, 0, 0, 0, 1),) * 2,
    (datetime.datetime(2026, 1, 2, 0, 0, 0, 1, datetime.UTC),) * 2,
    (datetime.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),) * 2,
    (decimal.Decimal("sNaN123"),) * 2,
    (decimal.Decimal("-NaN"),) * 2,
    (decimal.Decimal("1e999999999999999999"),) * 2,
    (decimal.Decimal("-1e-1999999999999999997"),) * 2,
    (decimal.Decimal("9" * 50_000),) * 2,
    ({"$set": [1]},) * 2,
    ({"$$": {"$uuid": "x"}},) * 2,
]
REFUSED: Final[list[Any]] = [
    2**64,
    -(2**63) - 1,
    10**5_000,
    subclass(int, BROKEN)(2**64),
    "\ud800",
    subclass(str)("\udfff"),
    Flag.A,
    Colour.RED,
    Record(),
    Record,
    Claims(),
    OfUnhashable(),
    LyingUUID(int=5),
    *(said(datetime.datetime, name, math.nan)(1, 1, 1) for name in ("year", "month", "day", "hour", "microsecond")),
    said(datetime.datetime, "minute", 7)(2026, 1, 2),
    said(datetime.datetime, "tzinfo", datetime.UTC)(2026, 1, 2),
    said(datetime.date, "year", math.nan)(1, 1, 1),
    said(datetime.date, "day", None)(2026, 1, 2),
    said(uuid.UUID, "hex", "")(int=0),
    said(decimal.Decimal, "real", math.nan)(0),
    {Signalling("sNaN")},
    {(1, (Signalling("sNaN"),))},
    frozenset({frozenset({Signalling("-sNaN5")}), 1}),
    OfLyingMeta(),
    released(),
    Timestamp(1),
    1j,
    range(3),
    (x for x in (1,)),
    iter([1]),
    map(str, [1]),
    {"a": 1}.keys(),
    collections.deque([1]),
    collections.UserDict(a=1),
    collections.UserList([1]),
    collections.UserString("a"),
    collections.ChainMap({"a": 1}),
    types.MappingProxyType({"a": 1}),
    types.SimpleNamespace(a=1),
    array.array("b", b"x"),
    fractions.Fraction(1, 2),
    pathlib.PurePosixPath("/"),
    ipaddress.ip_address("::1"),
    datetime.time(1),
    datetime.timedelta(1),
    datetime.UTC,
    moment(RuntimeError),
    moment("one hour"),
    moment(datetime.timedelta(days=2)),
    moment(datetime.timedelta(microseconds=-1)),
    moment(datetime.timedelta(microseconds=999_999)),
    object(),
    Exception("x"),
    NotImplemented,
    ...,
    len,
    cycle(list),
    cycle(dict),
    {1: 2},
    {None: 1},
    {b"a": 1},
    {("a", 1): 1},
    {"\ud800": 1},
    {subclass(int, BROKEN)(1): 1},
    {subclass(dict, {"__hash__": lambda _: 1})(a=1)},
    {subclass(list, {"__hash__": lambda _: 1})([1])},
    {subclass(set, {"__hash__": lambda _: 1})([1])},
    {subclass(bytearray, {"__hash__": lambda _: 1})(b"x")},
    {subclass(tuple, {"__hash__": lambda _: 1})(([1],))},
    {subclass(int, {"__hash__": lambda _: 5, "__eq__": lambda *_: False})(1), 1},
    {subclass(str, {"__hash__": lambda _: 5, "__eq__": lambda *_: False})("a"): 1, "a": 2},
    {uuid.UUID(int=(2**61 - 1) * number) for number in range(101)},
]
NOT_IN_JSON: Final = [math.nan, math.inf, -math.inf, subclass(float, BROKEN)("nan")]
