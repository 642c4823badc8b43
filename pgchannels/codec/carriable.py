"""What a message carries, in every format.

A message carries None, bool, int (-2**63 to 2**64 - 1), float, str, bytes, UUID, datetime, date, Decimal, list, set,
and dict with str keys. A value of a subclass arrives as the type itself, whatever its own methods do. Some others
arrive as the nearest type: tuples as lists, frozensets as sets, bytearray and memoryview as bytes, a time zone as its
offset from UTC. Inside a set, where everything must be hashable, tuples stay tuples, and sets become frozensets; dict,
list, set and bytearray are refused there, even those of a hashable subclass. JSON has neither NaN nor infinity, so it
refuses such floats. For a value of any other type, the layer's `default` may return one of these.

Containers of any kind may be nested 200 deep. Senders check this (`InvalidMessage`), and so do receivers, whoever wrote
the message (`UnreadableMessage`): deeper ones could exhaust the stack when they are compared, hashed, shown or freed.
At most 100 members of a set may have the same hash, since each is compared with all others of its hash.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Final, TypeAlias

from pgchannels.codec.extensions import EXTENSIONS, Extension
from pgchannels.codec.members import frozen
from pgchannels.errors import InvalidMessage, MessageTooLarge

Default: TypeAlias = Callable[[Any], Any]

DEEPEST_NESTING: Final = 200
_LEAST_INTEGER: Final = -(2**63)
_GREATEST_INTEGER: Final = 2**64 - 1
_SETS: Final = frozenset({set, frozenset})
_MUTABLE: Final = frozenset({dict, list, set, bytearray})
_TEXT: Final = frozenset({str})
_CONTAINERS: Final[tuple[Any, ...]] = (dict, list, tuple, set, frozenset)
_PLAIN_LEAVES: Final = frozenset({NoneType, bool, int, float, str, bytes, bytearray, memoryview, *EXTENSIONS})


def require_countable(payload: Any, *, most: int) -> None:
    """Require that a payload holds at most so many items; those of a shared container count each time.

    As fast as `is_plain`, however often containers are shared: lists that each hold the next one twice, 40 deep, hold
    more items than anybody can pack.

    :raises MessageTooLarge: the payload holds more.
    """
    try:
        if type(payload) is dict and _PLAIN_LEAVES.issuperset(map(type, payload.values())):  # most payloads are
            return
        if _count(payload) > most:
            raise MessageTooLarge(f"the message holds more than {most:,} items: send it in parts")
    except MessageTooLarge:
        raise
    except Exception:  # noqa: S110 -- a type that does not hash: `as_received` says where
        pass


def _count(payload: Any) -> int:
    """Return how many items a payload holds; 0 if it is nested too deep, or contains itself."""
    total, level = 0, {id(payload): (payload, 1)}
    for _ in range(DEEPEST_NESTING + 1):
        below: dict[int, tuple[Any, int]] = {}
        for container, times in level.values():
            items = _items_of(container)
            total += times * len(items)
            if _PLAIN_LEAVES.issuperset(map(type, items)):
                continue
            for item in items:
                if isinstance(item, _CONTAINERS):
                    below[id(item)] = item, times + below.get(id(item), (item, 0))[1]
        if not below:
            return total
        level = below
    return 0


def _items_of(container: Any) -> Sequence[Any]:
    # By the methods of the type itself: those of a subclass may return anything, or never end.
    if isinstance(container, dict):
        return list(dict.values(container))
    kind = next((kind for kind in _CONTAINERS if isinstance(container, kind)), None)
    return () if kind is None else list(kind.__iter__(container))


def is_plain(payload: Any) -> bool:
    """Whether all values have exactly these types, all keys are str, and nothing is too deep; a set is not plain.

    Fast, since it looks only at types. The payload must not contain itself.
    """
    if type(payload) is dict and _PLAIN_LEAVES.issuperset(map(type, payload.values())):  # most payloads are
        return _TEXT.issuperset(map(type, payload))
    level: list[Iterable[Any]] = [(payload,)]
    for _ in range(DEEPEST_NESTING + 1):
        below: list[Iterable[Any]] = []
        for items in level:
            if not _PLAIN_LEAVES.issuperset(map(type, items)) and not _collect_containers(items, below):
                return False
        if not below:
            return True
        level = below
    return False


def _collect_containers(items: Iterable[Any], containers: list[Iterable[Any]]) -> bool:
    for item in items:
        kind = type(item)
        if kind is dict:
            if not _TEXT.issuperset(map(type, item)):
                return False
            containers.append(item.values())
        elif kind is list or kind is tuple:
            containers.append(item)
        elif kind not in _PLAIN_LEAVES:
            return False
    return True


def as_received(payload: Any, *, only_finite: bool = False, default: Default | None = None) -> Any:
    """Return the payload as its receivers get it: a copy, of plain types only.

    :param default: returns a value to carry in place of one that no message can carry.
    :raises InvalidMessage: it holds a value that no message can carry; the text says where.
    """
    try:
        return _Reading(_FINITE_LEAVES if only_finite else _LEAVES, default).read(payload)
    except _UncarriableError as error:
        raise InvalidMessage(str(error)) from error.__cause__


class _Reading:
    """Reads payloads: anything but a container by the function for its type."""

    def __init__(self, leaves: Mapping[type, Callable[[Any], Any]], default: Default | None) -> None:
        self._leaves = leaves
        self._default = default

    def read(self, value: Any, depth: int = 0, *, in_set: bool = False) -> Any:
        kind = _kind_of(value)
        if in_set and kind in _MUTABLE:
            raise _UncarriableError(f"is a {_type_name(value)}, which can be changed: it is in a set")
        if kind is not None and kind in self._leaves:
            return _read_leaf(self._leaves[kind], value)
        if depth == DEEPEST_NESTING:
            raise _UncarriableError(f"is nested more than {DEEPEST_NESTING} deep, or contains itself")
        if kind is None:
            return self.read(self._replaced(value), depth + 1, in_set=in_set)
        places, items = _open(kind, value)
        received = self._read_items(places, items, depth + 1, in_set=in_set or kind in _SETS)
        return _close(kind, places, received, in_set=in_set)

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
            reason = f"is a {_type_name(value)}, for which `default` raised {_shown(error)}"
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
    # By its real type, not by its `__class__`. The most specific type comes first.
    try:
        if type(value) in _KINDS:
            return type(value)
        return next((kind for kind in type(value).__mro__ if kind in _KINDS), None)
    except Exception as error:  # its metaclass does not hash
        raise _UncarriableError(f"is a {_type_name(value)}, whose type cannot be told") from error


def _read_leaf(read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except _UncarriableError:
        raise
    except Exception as error:  # mostly from a time zone
        raise _UncarriableError(f"is a {_type_name(value)} that cannot be read: {type(error).__name__}") from error


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
    except ValueError as error:
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
    if not _LEAST_INTEGER <= integer <= _GREATEST_INTEGER:
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
    return lambda value: extension.from_text(extension.to_text(value))


def _type_name(value: Any) -> str:
    name: str = type.__dict__["__name__"].__get__(type(value))  # not what a metaclass makes of it
    return name


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80}"
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
_ITERATORS: Final[Mapping[type, Callable[[Any], Any]]] = {kind: kind.__iter__ for kind in (list, tuple, set, frozenset)}
_KINDS: Final = frozenset({*_LEAVES, *_ITERATORS, dict})


class _UncarriableError(Exception):
    """Collects the path to the bad value on its way out."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []

    def __str__(self) -> str:
        path = self.path[::-1]
        shown = path if len(path) <= 8 else [*path[:4], "…", *path[-3:]]
        return f"message{''.join(shown)} {self.reason}"
