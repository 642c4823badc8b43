"""What a message carries, in every format.

A message carries None, bool, int (-2**63 to 2**64 - 1), float, str, bytes, UUID, datetime, date, Decimal, list, set,
and dict with str keys. A value of a subclass arrives as the type itself, whatever its own methods do. Some others
arrive as the nearest type: tuples as lists, frozensets as sets, bytearray and memoryview as bytes, a time zone as its
offset from UTC. Inside a set, where everything must be hashable, tuples stay tuples, and sets become frozensets; dict,
list, set and bytearray are refused there, even those of a hashable subclass. JSON has neither NaN nor infinity, so it
refuses such floats. A value of a subclass is refused if its fields say something else than the value that would arrive,
as those of `pandas.NaT` do. For a value of any other type, the layer's `default` may return one of these.

Containers of any kind may be nested 200 deep. Senders check this (`InvalidMessage`), and so do receivers, whoever wrote
the message (`UnreadableMessage`): deeper ones could exhaust the stack when they are compared, hashed, shown or freed.
At most 100 members of a set may have the same hash, since each is compared with all others of its hash.

A payload that cannot fit into a message is refused before it is packed (`MessageTooLarge`), in time that does not grow
with how often its containers and texts are shared: lists that each hold the next one twice, 40 deep, hold more items
than anybody can pack.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import NoneType
from typing import Any, Final, TypeAlias

from pgchannels.codec.extensions import EXTENSIONS, Extension
from pgchannels.codec.members import frozen
from pgchannels.codec.plain import DEEPEST_NESTING, LARGEST_MESSAGE_BYTES, PLAIN_LEAVES
from pgchannels.errors import InvalidMessage, MessageTooLarge

Default: TypeAlias = Callable[[Any], Any]

LEAST_INTEGER: Final = -(2**63)
GREATEST_INTEGER: Final = 2**64 - 1
_SETS: Final = frozenset({set, frozenset})
_MUTABLE: Final = frozenset({dict, list, set, bytearray})


def as_received(payload: Any, *, only_finite: bool = False, default: Default | None = None) -> Any:
    """Return the payload as its receivers get it: of plain types only; what it shares, the copy shares, too.

    :param default: returns a value to carry in place of one that no message can carry.
    :raises InvalidMessage: it holds a value that no message can carry; the text says where.
    :raises MessageTooLarge: it cannot fit into a message.
    """
    try:
        return _Reading(_FINITE_LEAVES if only_finite else _LEAVES, default).read(payload)
    except _UncarriableError as error:
        raise InvalidMessage(str(error)) from error.__cause__


@dataclass(slots=True)
class _Read:
    """A container that was read, or a value that `default` replaced; `value` keeps its id from being used again."""

    value: Any
    received: Any
    size: int
    height: int


class _Reading:
    """Reads a payload: leaves by the function for their type, anything else once, however often it is shared.

    Each time, it counts: a container by its items, a text by its length. That is never more than the bytes it takes.
    """

    def __init__(self, leaves: Mapping[type, Callable[[Any], Any]], default: Default | None) -> None:
        self._leaves = leaves
        self._default = default
        self._size = 0
        self._deepest = 0
        self._known: dict[tuple[int, bool], _Read | None] = {}  # None: it is being read

    def read(self, value: Any, depth: int = 0, *, in_set: bool = False) -> Any:
        kind = _kind_of(value)
        if in_set and kind in _MUTABLE:
            raise _UncarriableError(f"is a {_type_name(value)}, which can be changed: it is in a set")
        if kind is not None and kind in self._leaves:
            return self._read_leaf(kind, value)
        key = id(value), in_set
        known = self._known.get(key, _UNKNOWN)
        if known is None or depth == DEEPEST_NESTING:
            raise _UncarriableError(f"is nested more than {DEEPEST_NESTING} deep, or contains itself")
        if depth + known.height > DEEPEST_NESTING:  # to raise the error in its place, or it is unknown
            known = self._read_new(key, kind, value, depth)
        else:
            self._add(known.size)
        self._deepest = max(self._deepest, depth + known.height)
        return known.received

    def _read_new(self, key: tuple[int, bool], kind: type | None, value: Any, depth: int) -> _Read:
        self._known[key] = None
        size, deepest, self._deepest = self._size, self._deepest, depth + 1
        received = self._read_inside(kind, value, depth + 1, in_set=key[1])
        read = self._known[key] = _Read(value, received, self._size - size, self._deepest - depth)
        self._deepest = max(self._deepest, deepest)
        return read

    def _read_inside(self, kind: type | None, value: Any, depth: int, *, in_set: bool) -> Any:
        if kind is None:
            return self.read(self._replaced(value), depth, in_set=in_set)
        places, items = _open(kind, value)
        self._add(len(items) + (sum(map(len, places)) if kind is dict else 0))
        received = self._read_items(places, items, depth, in_set=in_set or kind in _SETS)
        return _close(kind, places, received, in_set=in_set)

    def _read_leaf(self, kind: type, value: Any) -> Any:
        try:
            if kind in _LENGTHS:
                self._add(_LENGTHS[kind](value))
            return self._leaves[kind](value)
        except (_UncarriableError, MessageTooLarge):
            raise
        except Exception as error:  # mostly from a time zone
            raise _UncarriableError(f"is a {_type_name(value)} that cannot be read: {type(error).__name__}") from error

    def _add(self, size: int) -> None:
        self._size += size
        if self._size > LARGEST_MESSAGE_BYTES:
            raise MessageTooLarge(f"the message takes more than {LARGEST_MESSAGE_BYTES:,} bytes: send it in parts")

    def _replaced(self, value: Any) -> Any:
        if self._default is None:
            raise _UncarriableError(
                f"is a {_type_name(value)}: a message carries None, bool, int, float, str, bytes, list, dict, set,"
                " UUID, datetime, date and Decimal. Send one of these in its place, or give the layer a"
                " `default` that does"
            )
        try:
            return self._default(value)
        except Exception as error:
            shown = f"{_type_name(error)}({', '.join(map(_shown, _arguments_of(error)))})"
            reason = f"is a {_type_name(value)}, for which `default` raised {shown:.80}"
            raise _UncarriableError(reason) from error

    def _read_items(self, places: Sequence[Any], items: Sequence[Any], depth: int, *, in_set: bool) -> list[Any]:
        received = []
        for place, item in zip(places, items, strict=True):
            try:
                received.append(self.read(item, depth, in_set=in_set))
            except _UncarriableError as error:
                error.path.append(f"[{place!r:.80}]")
                raise
        return received


def _kind_of(value: Any) -> type | None:
    # By its real type, not by its `__class__` or what a metaclass says. The most specific type comes first.
    try:
        if type(value) in _KINDS:
            return type(value)
        return next((kind for kind in _bases_of(type(value)) if kind in _KINDS), None)
    except Exception as error:  # its metaclass does not hash
        raise _UncarriableError(f"is a {_type_name(value)}, whose type cannot be told") from error


def _open(kind: type, value: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    # By the methods of the type itself: those of a subclass may return anything, or never end.
    if kind is dict:
        pairs = list(dict.items(value))  # at once: another thread may change it
        return [_key(key) for key, _ in pairs], [item for _, item in pairs]
    items = list(_ITERATORS[kind](value))
    return range(len(items)), items


def _close(kind: type, places: Sequence[Any], items: list[Any], *, in_set: bool) -> Any:
    if kind is dict:
        return _distinct(dict(zip(places, items, strict=True)), len(items))
    if kind in _SETS:
        members = _distinct(_frozen(items), len(items))
        return members if in_set else set(members)
    return tuple(items) if in_set else items


def _distinct(container: Any, size: int) -> Any:
    # Values of a subclass may differ although the values that arrive are equal.
    if len(container) < size:
        raise _UncarriableError("holds keys or members that are equal once they arrive")
    return container


def _frozen(items: list[Any]) -> frozenset[Any]:
    try:
        return frozen(items)
    except (TypeError, ValueError) as error:  # such as a signalling NaN, of which only a subclass is hashable
        raise _UncarriableError(f"cannot be looked up: {error}") from error


def _key(key: Any) -> str:
    if not issubclass(type(key), str):
        raise _UncarriableError(
            f"has the key {_shown(key)}, a {_type_name(key)}: keys are str, as in JSON. Send str(key)"
        )
    return _text(key)


def _text(value: str) -> str:
    text = str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _UncarriableError("holds half of a surrogate pair, which is no Unicode text") from error
    return text


def require_64_bits(value: int) -> int:
    # Compared as numbers: `in range(…)` would iterate over the range for a subclass of int.
    integer = int.__int__(value)
    if not LEAST_INTEGER <= integer <= GREATEST_INTEGER:
        raise _UncarriableError("is an integer of more than 64 bits: send it as a str")
    return integer


def _finite(value: float) -> float:
    number = float.__float__(value)
    if not math.isfinite(number):
        raise _UncarriableError(f"is {number}, which JSON does not have: send it as None, or as a Decimal")
    return number


def _same(value: Any) -> Any:
    return value


def _reader_of(extension: Extension) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not extension.kind:
            _require_true_fields(extension, value)
        return extension.from_text(extension.to_text(value))

    return read


def _require_true_fields(extension: Extension, value: Any) -> None:
    for name in extension.fields:
        said, held = getattr(value, name), getattr(extension.kind, name).__get__(value)
        if said is not held and said != held:
            raise _UncarriableError(
                f"is a {_type_name(value)} whose {name} is {_shown(said)}, but it would arrive as a"
                f" {extension.kind.__name__} whose {name} is {_shown(held)}: send something else in its place"
            )


def _type_name(value: Any) -> str:
    name: str = type.__dict__["__name__"].__get__(type(value))  # not what a metaclass makes of it
    return name


def _shown(value: Any) -> str:
    # Containers, and objects that hold them, may share so much that their text never ends.
    try:
        if isinstance(value, tuple) and PLAIN_LEAVES.issuperset(map(type, value)):
            return f"{tuple.__repr__(value):.80}"
        return f"{value!r:.80}" if _kind_of(value) in _LEAVES else "…"
    except Exception:  # from the user's class, or for a number with too many digits
        return "that cannot be shown"


_LEAVES: Final[Mapping[type, Callable[[Any], Any]]] = {
    NoneType: _same,
    bool: _same,
    int: require_64_bits,
    float: float.__float__,
    str: _text,
    bytes: bytes.__bytes__,
    bytearray: lambda value: bytes(memoryview(value)),
    memoryview: memoryview.tobytes,
    **{kind: _reader_of(extension) for kind, extension in EXTENSIONS.items()},
}
_FINITE_LEAVES: Final = {**_LEAVES, float: _finite}
_LENGTHS: Final[Mapping[type, Callable[[Any], int]]] = {
    str: str.__len__,
    bytes: bytes.__len__,
    bytearray: bytearray.__len__,
    memoryview: lambda view: view.nbytes,
    Decimal: lambda number: len(Decimal.__str__(number)),
}
_ITERATORS: Final[Mapping[type, Callable[[Any], Any]]] = {kind: kind.__iter__ for kind in (list, tuple, set, frozenset)}
_CONTAINERS: Final = frozenset({*_ITERATORS, dict})
_KINDS: Final = _CONTAINERS | _LEAVES.keys()
_UNKNOWN: Final = _Read(None, None, 0, DEEPEST_NESTING + 1)
_arguments_of: Final[Callable[[Exception], tuple[Any, ...]]] = BaseException.__dict__["args"].__get__
_bases_of: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__


class _UncarriableError(Exception):
    """Collects the path to the bad value on its way out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        path = self.path[::-1]
        shown = path if len(path) <= 8 else [*path[:4], "…", *path[-3:]]
        return f"message{''.join(shown)} {self.reason}"
