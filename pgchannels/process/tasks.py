"""The tasks of a node."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """Run for as long as the node lives.

    :param on_failure: called with a failed task, and its error.
    """

    def __init__(self, *, on_failure: Callable[[asyncio.Task[None], BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run something until `stop`."""
        task = asyncio.create_task(work, name=f"pgchannels {name}")
        self._tasks.append(task)
        self.watch(task)

    def watch(self, task: asyncio.Task[None]) -> None:
        """Report the failure of a task that is stopped elsewhere."""
        task.add_done_callback(self._notice)

    async def stop(self) -> None:
        """Cancel all started tasks, and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _notice(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task, error)
