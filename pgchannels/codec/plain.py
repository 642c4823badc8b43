"""Which payloads need no reading before they are packed: most of them."""

from collections.abc import Iterable
from itertools import chain
from operator import length_hint
from types import NoneType
from typing import Any, Final

from pgchannels.codec.extensions import EXTENSIONS

DEEPEST_NESTING: Final = 200


LARGEST_MESSAGE_BYTES: Final = 64 * 1024 * 1024


_TEXT: Final = frozenset({str})


# Those whose size `length_hint` tells, and Decimals, of which few are long; not memoryviews.
PLAIN_LEAVES: Final = frozenset({NoneType, bool, int, float, str, bytes, bytearray, *EXTENSIONS})


def is_plain(payload: Any) -> bool:
    """Whether a payload has only str as keys and values of exactly some types, shares no container, and can fit.

    Fast, since it looks at types and lengths alone, and at each container once. A set is never plain.
    """
    if type(payload) is dict and PLAIN_LEAVES.issuperset(map(type, payload.values())):  # most payloads are
        # Without the lengths of its keys, none of which is in it twice.
        return _TEXT.issuperset(map(type, payload)) and sum(map(length_hint, payload.values())) <= LARGEST_MESSAGE_BYTES
    size, seen = 0, set[int]()
    level: list[Iterable[Any]] = [(payload,)]
    for _ in range(DEEPEST_NESTING + 1):
        dicts: list[dict[Any, Any]] = []
        below: list[Iterable[Any]] = []
        for items in level:
            if not PLAIN_LEAVES.issuperset(map(type, items)) and not _collect_containers(items, dicts, below, seen):
                return False
        if not _TEXT.issuperset(map(type, chain.from_iterable(dicts))):
            return False
        size += sum(map(length_hint, chain.from_iterable(level))) + sum(map(len, chain.from_iterable(dicts)))
        if size > LARGEST_MESSAGE_BYTES:
            return False
        if not below:
            return True
        level = below
    return False


def _collect_containers(
    items: Iterable[Any], dicts: list[dict[Any, Any]], below: list[Iterable[Any]], seen: set[int]
) -> bool:
    for item in items:
        kind = type(item)
        if kind in PLAIN_LEAVES:
            continue
        if id(item) in seen:
            return False
        seen.add(id(item))
        if kind is dict:
            dicts.append(item)
            below.append(item.values())
        elif kind is list or kind is tuple:
            below.append(item)
        else:
            return False
    return True
