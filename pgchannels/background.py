"""One thread with an event loop of its own that sends for all who have no node in theirs."""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from pgchannels.database.connections import Database
from pgchannels.database.tables import Schema
from pgchannels.errors import LayerClosed
from pgchannels.options import Options
from pgchannels.sender import Sender

_STOP_TIMEOUT_SECONDS: Final = 40

T = TypeVar("T")


class BackgroundSender:
    """A sender that any thread and any event loop may borrow; one connection."""

    def __init__(self, database: Database, options: Options) -> None:
        self._database = database
        self._options = options
        self._sender: Future[Sender] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pgchannels sender", daemon=True)

    def start(self) -> None:
        """Start the thread. Should the database refuse, every call raises the reason."""
        self._thread.start()
        atexit.register(self.stop)

    @property
    def has_failed(self) -> bool:
        """Whether it could not be opened: another one may have more luck."""
        return self._sender.done() and self._sender.exception() is not None

    def submit(self, send: Callable[[Sender], Awaitable[T]]) -> "Future[T]":
        """Run `send` with the sender; the future has its result."""
        return asyncio.run_coroutine_threadsafe(self._run_with_sender(send), self._loop)

    def stop(self) -> None:
        """Send what waits and end the thread."""
        atexit.unregister(self.stop)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_TIMEOUT_SECONDS)

    async def _run_with_sender(self, send: Callable[[Sender], Awaitable[T]]) -> T:
        return await send(await asyncio.wrap_future(self._sender))

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        connections = self._database.connect()
        sender = Sender(connections, Schema(self._options.schema), self._options)
        try:
            await sender.open()
            await connections.close()  # the pooled connection was for opening alone
            self._sender.set_result(sender)
        except Exception as error:
            self._sender.set_exception(error)
        await self._stop.wait()
        await sender.close()
        await connections.close()
        await _finish_others()


async def _finish_others() -> None:
    others: list[asyncio.Task[Any]] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel(str(LayerClosed("the layer was closed")))
    await asyncio.gather(*others, return_exceptions=True)
