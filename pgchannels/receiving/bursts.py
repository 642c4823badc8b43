"""Tells a first event from those that follow it closely, so that a flood is one line of the log."""

import time
from collections.abc import Hashable
from typing import Final

_BURST_SECONDS: Final = 10


class Bursts:
    """A burst of events of one kind ends when some seconds have passed without one."""

    def __init__(self) -> None:
        self._last_seconds: dict[Hashable, float] = {}

    def begins(self, kind: Hashable) -> bool:
        """Note an event; returns whether it is the first of a burst."""
        now = time.monotonic()
        is_first = now - self._last_seconds.get(kind, -_BURST_SECONDS) >= _BURST_SECONDS
        self._last_seconds[kind] = now
        return is_first
