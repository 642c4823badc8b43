"""Cancels a call after each number of steps of the event loop, until it is through."""

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from tests.support.waiting import LIMIT_SECONDS

_COMPLETED_IN_A_ROW: Final = 3  # one call may have been through sooner than the next one will be

T = TypeVar("T")


class SteppingLoop(asyncio.SelectorEventLoop):
    """An event loop that can cancel a task after so many of its steps."""

    def __init__(self) -> None:
        self._steps = _Steps()
        super().__init__(self._steps)

    def cancel_after(self, steps: int, task: "asyncio.Task[T]") -> None:
        """Cancel the task when the loop has made so many steps more: with 0 before the task has begun."""
        self._steps.countdown, self._steps.task = steps, task


@dataclass(frozen=True, slots=True)
class Attempt(Generic[T]):
    """A call that was made, and perhaps cancelled; `number` differs from call to call, and grows."""

    number: int
    was_cancelled: bool
    result: T | None


async def attempts(
    call: Callable[[int], Coroutine[Any, Any, T]],
    *,
    every: int = 1,
    clean_up: Callable[[], Awaitable[None]] | None = None,
) -> "AsyncIterator[Attempt[T]]":
    """Make a call cancelled after 0 steps of the loop, after 1, 2, … until it is through three times in a row.

    With `every=7`, after 0, 7, 14, …. After each call, cleaned up, no task may stay behind, and no cancellation may
    have been swallowed.
    """
    number = completed = 0
    while completed < _COMPLETED_IN_A_ROW:
        before = asyncio.all_tasks()
        attempt = await _attempt(call, number)
        if clean_up is not None:
            await clean_up()
        await _ended(asyncio.all_tasks() - before, attempt)
        yield attempt
        completed = 0 if attempt.was_cancelled else completed + 1
        number += every
    assert number > _COMPLETED_IN_A_ROW, "the call was never cancelled"


async def _attempt(call: Callable[[int], Coroutine[Any, Any, T]], number: int) -> Attempt[T]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppingLoop)
    task = asyncio.create_task(call(number), name=f"attempt {number}")
    loop.cancel_after(number, task)
    await asyncio.wait([task], timeout=LIMIT_SECONDS)
    assert task.done(), f"cancelled after {number} steps, the call does not end"
    assert task.cancelled() or not task.cancelling(), f"cancelled after {number} steps, the call goes on: {task!r}"
    return Attempt(number, task.cancelled(), None if task.cancelled() else task.result())


async def _ended(tasks: "set[asyncio.Task[Any]]", attempt: "Attempt[Any]") -> None:
    if tasks:
        _, left = await asyncio.wait(tasks, timeout=LIMIT_SECONDS)
        assert not left, f"{attempt} left {left}"


class _Steps(selectors.DefaultSelector):
    """The loop asks it once in each step."""

    countdown = -1
    task: "asyncio.Task[Any] | None" = None

    def select(self, timeout: float | None = None) -> "list[tuple[selectors.SelectorKey, int]]":
        events = super().select(timeout)
        if self.task is not None and self.countdown == 0:
            self.task.cancel()  # before what the events bring is told to anybody
            self.task = None
        self.countdown -= 1
        return events
