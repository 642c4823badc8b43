"""Counts and logs what was lost."""

import logging
import time
from collections.abc import Callable, Hashable
from typing import Final

from pgchannels.messages import Gap

QUEUE_IN_TOPIC: Final = "a queue in a topic"  # only the database knows which one
_BURST_SECONDS: Final = 10

logger: logging.Logger = logging.getLogger("pgchannels")


class Bursts:
    """Detects bursts of events: a burst of one kind ends after ten seconds without one."""

    def __init__(self) -> None:
        self._last_seconds: dict[Hashable, float] = {}

    def begins(self, kind: Hashable) -> bool:
        """Record an event; return whether it is the first of a burst."""
        now = time.monotonic()
        is_first = now - self._last_seconds.get(kind, -_BURST_SECONDS) >= _BURST_SECONDS
        self._last_seconds[kind] = now
        return is_first


class Losses:
    """The losses of one node. A burst of losses for one reason is logged once, at its beginning."""

    def __init__(self) -> None:
        self.messages: int = 0
        self.gaps: int = 0
        self._bursts = Bursts()

    def at(self, receiver: str) -> Callable[[Gap], None]:
        """Return a function that counts the losses of a receiver, and logs them with its name."""
        return lambda gap: self._note(receiver, gap)

    def count(self, gap: Gap) -> None:
        """Count a loss that is logged elsewhere."""
        self.gaps += 1
        self.messages += gap.count or 0

    def _note(self, receiver: str, gap: Gap) -> None:
        self.count(gap)
        if self._bursts.begins(gap.reason):
            logger.warning("%s: %s; further losses of this kind are told to their receivers alone", receiver, gap)
