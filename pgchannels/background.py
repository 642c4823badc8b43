"""One thread with an event loop of its own that sends for all who have no node in theirs."""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, TypeVar

from pgchannels.database.connections import Database, explained
from pgchannels.database.tables import Schema
from pgchannels.errors import LayerClosed
from pgchannels.options import Options
from pgchannels.sender import Sender

_LAST_CALLS_SECONDS: Final = 30
_STOP_TIMEOUT_SECONDS: Final = 2 * _LAST_CALLS_SECONDS

T = TypeVar("T")


class BackgroundSender:
    """A sender that any thread and any event loop may borrow; one connection, given back after `idle_seconds`."""

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None = None) -> None:
        self._connections = database.connect(keep=idle_seconds is None)
        self._sender = Sender(self._connections, Schema(options.schema), options, idle_seconds=idle_seconds)
        self._loop = asyncio.new_event_loop()
        self._opened = asyncio.Event()
        self._error: Exception | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pgchannels sender", daemon=True)

    def start(self) -> None:
        """Start the thread. Should the database refuse, every call raises the reason."""
        self._thread.start()
        atexit.register(self.stop)

    @property
    def has_failed(self) -> bool:
        """Whether it could not be opened: another one may have more luck."""
        return self._error is not None

    def submit(self, send: Callable[[Sender], Awaitable[T]]) -> "Future[T]":
        """Run `send` with the sender; the future has its result."""
        return asyncio.run_coroutine_threadsafe(self._run_with_sender(send), self._loop)

    def end(self) -> None:
        """Let the thread send what waits and end; does not wait for it."""
        if self._thread.is_alive():  # not so in a child of a fork
            with suppress(RuntimeError):  # the loop was closed just now
                self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        """Send what waits and end the thread."""
        atexit.unregister(self.stop)
        self.end()
        self._thread.join(_STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())
        atexit.unregister(self.stop)

    async def _serve(self) -> None:
        try:
            await self._sender.open()
            await self._connections.close()  # the pooled connection was for opening alone
        except Exception as error:
            self._error = explained(error)
        self._opened.set()
        await self._stop.wait()
        if others := asyncio.all_tasks() - {asyncio.current_task(), self._sender.task}:
            await asyncio.wait(others, timeout=_LAST_CALLS_SECONDS)
        await self._sender.close()
        await self._connections.close()

    async def _run_with_sender(self, send: Callable[[Sender], Awaitable[T]]) -> T:
        await self._opened.wait()
        if self._error is not None:
            raise self._error
        try:
            return await send(self._sender)
        except asyncio.CancelledError:
            if self._stop.is_set():
                text = "the layer was closed while the message was on its way"
                raise LayerClosed(text, may_have_been_sent=True) from None
            raise
