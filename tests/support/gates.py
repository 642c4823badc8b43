"""Holds one call of a part, so that something else can happen meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self


class Gate:
    """Stands in an asynchronous method of an object while it is entered: holds its next call until `open`.

    :param behind: hold the answer, which is here already, in place of the question.
    :param first: how many calls to let through before.
    """

    def __init__(self, owner: object, method: str, *, behind: bool = False, first: int = 0) -> None:
        self._owner = owner
        self._method = method
        self._call: Callable[..., Awaitable[Any]] = getattr(owner, method)
        self._is_behind = behind
        self._to_pass = first
        self._reached = asyncio.Event()
        self._opened = asyncio.Event()
        self._done = asyncio.Event()

    def __enter__(self) -> Self:
        setattr(self._owner, self._method, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.open()
        setattr(self._owner, self._method, self._call)

    async def reached(self) -> None:
        """Return once a call is held."""
        await self._reached.wait()

    def open(self) -> None:
        """Let the call go on, and all that follow."""
        self._opened.set()

    async def done(self) -> None:
        """Return once a call has returned."""
        await self._done.wait()

    async def _pass(self, *arguments: Any, **options: Any) -> Any:
        if not self._is_behind:
            await self._hold()
        answer = await self._call(*arguments, **options)
        if self._is_behind:
            await self._hold()
        self._done.set()
        return answer

    async def _hold(self) -> None:
        if self._to_pass:
            self._to_pass -= 1
            return
        self._reached.set()
        await self._opened.wait()
