"""A task that waits in several lines takes from one of them."""

import asyncio
from collections import deque

from pgchannels.receiving.line import Line, Turn, first_of
from tests.support.waiting import steps, within


class Counter:
    """A line for numbers; the least number is the oldest."""

    def __init__(self, *numbers: int) -> None:
        self.line = Line()
        self.numbers = deque(numbers)

    def turn(self) -> Turn[int]:
        """What takes the next number."""
        return Turn(self.line, lambda: self.numbers.popleft() if self.numbers else None, lambda: self.numbers[0])

    def add(self, number: int) -> None:
        """Add a number, and wake a task for it."""
        self.numbers.append(number)
        self.line.wake(1)


class Empty(Counter):
    """One whose age nobody asks while it is empty."""

    def turn(self) -> Turn[int]:
        return Turn(self.line, lambda: self.numbers.popleft() if self.numbers else None)


async def test_oldest_of_what_is_there_is_taken() -> None:
    one, two = Counter(2, 3), Counter(1, 4)
    taken = [await within(first_of([one.turn(), two.turn()])) for _ in range(2)]
    assert taken == [1, 2]
    assert (one.numbers, two.numbers) == (deque([3]), deque([4]))
    assert (one.line.places, two.line.places) == ([], [])


async def test_task_waits_for_whichever_line_has_something_first() -> None:
    one, two = Empty(), Empty()
    waiting = asyncio.ensure_future(first_of([one.turn(), two.turn()]))
    await steps(3)
    two.add(7)
    assert await within(waiting) == 7
    assert (one.line.places, two.line.places) == ([], [])


async def test_item_comes_with_its_origin() -> None:
    one, two = Empty(), Empty(7)
    assert await within(first_of([one.turn().of("one"), two.turn().of("two")])) == ("two", 7)


async def test_task_that_waits_longer_in_a_line_is_served_first() -> None:
    one, two = Empty(), Empty()
    longer = asyncio.ensure_future(one.line.first(one.turn().take))
    await steps(2)
    waiting = asyncio.ensure_future(first_of([one.turn(), two.turn()]))
    await steps(2)
    one.add(1)
    assert await within(longer) == 1
    one.add(2)
    assert await within(waiting) == 2


async def test_cancelled_wait_takes_nothing() -> None:
    one, two = Empty(), Empty()
    waiting = asyncio.ensure_future(first_of([one.turn(), two.turn()]))
    await steps(2)
    one.add(1)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert list(one.numbers) == [1]
    assert (one.line.places, two.line.places) == ([], [])


async def test_error_of_one_turn_ends_the_wait() -> None:
    one, two = Empty(), Empty()
    errors: list[BaseException] = []
    waiting = asyncio.ensure_future(first_of([one.turn().unless(lambda: next(iter(errors), None)), two.turn()]))
    await steps(2)
    errors.append(OSError("gone"))
    one.line.wake(1)
    await asyncio.wait([waiting])
    assert str(waiting.exception()) == "gone"
