"""Pauses between attempts to reach the database."""

import asyncio
import random
from typing import Final

_FIRST_SECONDS: Final = 0.05
_LONGEST_SECONDS: Final = 5.0


class Backoff:
    """Ever longer pauses, each with jitter so that many nodes do not come back at the same moment."""

    def __init__(self) -> None:
        self._next_seconds = _FIRST_SECONDS

    async def pause(self, *, at_most_seconds: float = _LONGEST_SECONDS) -> None:
        """Wait, twice as long as the time before."""
        seconds = self._next_seconds * random.uniform(0.5, 1.0)  # noqa: S311
        self._next_seconds = min(2 * self._next_seconds, _LONGEST_SECONDS)
        await asyncio.sleep(min(seconds, max(at_most_seconds, 0)))

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self._next_seconds = _FIRST_SECONDS
