"""Counts and logs what cannot be read, and is passed over."""

import logging

from pgchannels.delivery.bursts import Bursts

logger: logging.Logger = logging.getLogger("pgchannels")


class Unreadable:
    """Of one node. A burst of one kind is one line of the log, at its beginning."""

    def __init__(self) -> None:
        self.count: int = 0
        self._bursts = Bursts()

    def note(self, text: str, *arguments: object) -> None:
        """Count one; the text without its arguments says of which kind it is."""
        self.count += 1
        if self._bursts.begins(text):
            logger.warning("%s; further ones are only counted", text % arguments)
