"""Counts and logs what was lost."""

import logging
from collections.abc import Callable

from pgchannels.messages import Gap
from pgchannels.receiving.bursts import Bursts

logger: logging.Logger = logging.getLogger("pgchannels")


class Losses:
    """Of one node. A burst of losses for one reason is one line of the log, at its beginning."""

    def __init__(self) -> None:
        self.messages: int = 0
        self.gaps: int = 0
        self._bursts = Bursts()

    def at(self, receiver: str) -> Callable[[Gap], None]:
        """What counts the losses of a receiver, which the log names."""
        return lambda gap: self._note(receiver, gap)

    def count(self, gap: Gap) -> None:
        """Count a loss that another line of the log tells of."""
        self.gaps += 1
        self.messages += gap.count or 0

    def _note(self, receiver: str, gap: Gap) -> None:
        self.count(gap)
        if self._bursts.begins(gap.reason):
            logger.warning("%s: %s; further losses of this kind are told to their receivers alone", receiver, gap)
