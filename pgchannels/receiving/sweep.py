"""Looks after all that nobody may be looking after, and holds the event loop for no longer than a moment."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

MOST_IN_A_STEP: Final = 50  # messages that expire
_STEPS_IN_A_TURN: Final = 50


class Sweep:
    """Of one node: a round when it is asked for one, in many turns of the event loop.

    :param steps: begins a round; each step of it is short.
    """

    def __init__(self, steps: Callable[[], Iterator[None]]) -> None:
        self._steps = steps
        self._work = asyncio.Event()

    def begin(self) -> None:
        """Make a round; when one is being made, another one after it."""
        self._work.set()

    async def run(self) -> None:
        """Make the rounds that are asked for, for ever."""
        while True:
            await self._work.wait()
            self._work.clear()
            for number, _ in enumerate(self._steps(), start=1):
                if number % _STEPS_IN_A_TURN == 0:
                    await asyncio.sleep(0)
