"""Gaps that occur while a receiver is between two calls of `receive`."""

from collections import OrderedDict, deque
from typing import Final

from pgchannels.messages import Gap

_MOST_NAMES: Final = 10_000
_MOST_GAPS: Final = 16


class MissedGaps:
    """Remembers the last ten thousand receivers that have no mailbox at the moment."""

    def __init__(self) -> None:
        self._gaps: deque[Gap] = deque(maxlen=_MOST_GAPS)
        self._count = 0
        self._left: OrderedDict[str, int] = OrderedDict()

    def lose(self, gap: Gap) -> None:
        """Record a gap for all receivers."""
        self._gaps.append(gap)
        self._count += 1

    def leave(self, name: str) -> None:
        """Record that a receiver knows of all gaps so far."""
        self._left[name] = self._count
        if len(self._left) > _MOST_NAMES:
            self._left.popitem(last=False)

    def come_back(self, name: str) -> list[Gap]:
        """Return the gaps since a receiver left; none for a new one."""
        missed = self._count - self._left.pop(name, self._count)
        return list(self._gaps)[-missed:] if missed else []
