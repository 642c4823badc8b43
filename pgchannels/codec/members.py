"""Sets whose members somebody else may have chosen."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

_MOST_OF_ONE_HASH: Final = 100


def frozen(members: Iterable[Any]) -> frozenset[Any]:
    """Return the frozenset of some members.

    :raises ValueError: so many have the same hash that they must have been chosen for it.
    :raises TypeError: one is not hashable.
    """
    members = list(members)
    # Each is compared with all others of its hash: a hundred thousand UUIDs with the same would take half an hour.
    if len(members) > _MOST_OF_ONE_HASH and max(Counter(map(hash, members)).values()) > _MOST_OF_ONE_HASH:
        raise ValueError(f"more than {_MOST_OF_ONE_HASH} members of a set have the same hash")
    return frozenset(members)
