"""What is being opened: a node, or the nodes of several servers."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from pgchannels.errors import LayerClosed, copy_of


class Closable(Protocol):
    """What can be opened and closed."""

    def begin_closing(self) -> None:
        """Begin to close; return at once."""


N = TypeVar("N", bound=Closable)


class Opening(Generic[N]):
    """A node that is being opened for all waiting callers, until the first gets it, or the last gives up."""

    def __init__(self, opening: Coroutine[Any, Any, N], *, on_end: Callable[[], object]) -> None:
        self._task = asyncio.create_task(opening, name="pgchannels open")
        self._on_end = on_end
        self._task.add_done_callback(self._forget_failure)
        self._waiting = 0
        self._is_wanted = False
        self._has_ended = False
        self._is_closed = False

    async def wait(self, *, in_any_case: bool) -> N:
        """Return the node once it is open."""
        self._waiting += 1
        self._is_wanted |= in_any_case
        try:
            await asyncio.wait([self._task])
            node = self._node()
        except BaseException:
            self._waiting -= 1
            if not self._waiting and not self._is_wanted:
                self._give_up()
            raise
        self._waiting -= 1
        self._end()
        return node

    async def close(self) -> None:
        """Stop opening; a node that is open already is closed."""
        self._is_closed = True
        self._give_up()
        await asyncio.wait([self._task])

    def _node(self) -> N:
        error = asyncio.CancelledError() if self._task.cancelled() else self._task.exception()
        if error is None:
            return self._task.result()
        if self._is_closed:
            raise LayerClosed("the layer was closed while it was opened") from error
        raise copy_of(error)

    def _forget_failure(self, opened: asyncio.Task[N]) -> None:
        if opened.cancelled() or opened.exception() is not None:
            self._end()

    def _give_up(self) -> None:
        if self._has_ended:
            return
        self._end()
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled() and self._task.exception() is None:
            self._task.result().begin_closing()  # nobody knows that it is open

    def _end(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._on_end()
