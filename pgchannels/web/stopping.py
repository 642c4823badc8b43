"""Whether the server in this process has been told to stop: uvicorn then waits for open responses, unknown to them."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakKeyDictionary

_POLL_SECONDS: Final = 0.2


@contextmanager
def when_server_stops(callback: Callable[[], None]) -> Iterator[None]:
    """Call back in this event loop once the server has been told to stop, unless the block has ended."""
    loop = asyncio.get_running_loop()
    watch = _WATCHES.setdefault(loop, _Watch())
    watch.add(callback, loop)
    try:
        yield
    finally:
        watch.callbacks.discard(callback)


class _Watch:
    """Looks for all streams of an event loop, with one timer while there are any."""

    def __init__(self) -> None:
        self.callbacks: set[Callable[[], None]] = set()
        self._is_due = False

    def add(self, callback: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.callbacks.add(callback)
        if not self._is_due:
            self._look(loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if _is_stopping():
            for callback in list(self.callbacks):
                callback()
            self.callbacks.clear()
        self._is_due = bool(self.callbacks)
        if self._is_due:
            loop.call_later(_POLL_SECONDS, self._look, loop)


# By event loop: those of other threads look for themselves.
_WATCHES: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Watch]] = WeakKeyDictionary()


def _is_stopping() -> bool:
    # uvicorn handles the signal with a method of its server; it offers no other way to ask.
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", None) is True
