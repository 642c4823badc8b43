"""Waiting for named moments, never for time to pass."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

LIMIT_SECONDS = 60
POLL_SECONDS = 0.01

T = TypeVar("T")


async def within(awaitable: Awaitable[T]) -> T:
    """Await something that must come; fail when it does not."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return await awaitable


async def steps(count: int) -> None:
    """Let the event loop make so many steps."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the answer is yes; fail when it does not come."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await condition():  # noqa: ASYNC110 (the condition lies in the database or in another process)
            await asyncio.sleep(POLL_SECONDS)
