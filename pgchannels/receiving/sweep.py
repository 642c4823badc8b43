"""Cleans up what nobody may be receiving any more, and never holds the event loop for long."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

MOST_IN_A_STEP: Final = 50  # messages that expire
_STEPS_IN_A_TURN: Final = 50
_URGENT_SECONDS: Final = 0.25


class Sweep:
    """Makes rounds for one node on request, spread over many turns of the event loop.

    :param steps: begins a round; each step of it is short.
    :param urgent_steps: begins a round of what cannot wait for a heartbeat.
    """

    def __init__(self, steps: Callable[[], Iterator[None]], *, urgent_steps: Callable[[], Iterator[None]]) -> None:
        self._steps = steps
        self._urgent_steps = urgent_steps
        self._is_due = asyncio.Event()
        self._is_urgent = asyncio.Event()

    def begin(self) -> None:
        """Request a round; if one is under way, another one follows it."""
        self._is_due.set()

    def urge(self) -> None:
        """Request an urgent round, which begins a moment later."""
        self._is_urgent.set()

    async def run(self) -> None:
        """Make the requested rounds, forever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(_repeat(self._steps, self._is_due, pause_seconds=0))
            both.create_task(_repeat(self._urgent_steps, self._is_urgent, pause_seconds=_URGENT_SECONDS))


async def _repeat(steps: Callable[[], Iterator[None]], asked: asyncio.Event, *, pause_seconds: float) -> None:
    while True:
        await asked.wait()
        asked.clear()
        await asyncio.sleep(pause_seconds)
        for number, _ in enumerate(steps(), start=1):
            if number % _STEPS_IN_A_TURN == 0:
                await asyncio.sleep(0)
