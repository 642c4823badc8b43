"""One thread with an event loop of its own that sends for all who have no node in theirs."""

import asyncio
import atexit
import threading
from contextlib import suppress
from typing import Final

from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.database.failures import explained
from pgchannels.database.tables import Schema
from pgchannels.lending import Lender
from pgchannels.options import Options
from pgchannels.sender import Sender

_LAST_CALLS_SECONDS: Final = 30
_STOP_TIMEOUT_SECONDS: Final = 2 * _LAST_CALLS_SECONDS


class BackgroundSender:
    """A sender that any thread and any event loop may borrow; one connection, given back after `idle_seconds`."""

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None = None) -> None:
        self._connections = Connections(database)
        self._sender = Sender(self._connections, Schema(options.schema), options, idle_seconds=idle_seconds)
        self._loop = asyncio.new_event_loop()
        self.lender: Lender = Lender(self._loop)
        self._has_failed = False
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pgchannels sender", daemon=True)

    def start(self) -> None:
        """Start the thread. Should the database refuse, every call raises the reason."""
        self._thread.start()
        atexit.register(self.stop)

    @property
    def is_of_use(self) -> bool:
        """Whether it can send, or may be able to when it is open; another one may have more luck."""
        writing = self._sender.task
        return self._thread.is_alive() and not self._has_failed and (writing is None or not writing.done())

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
            await self._sender.require_schema()
            await self._sender.open()
            await self._sender.keep_messages()
            await self._connections.close()
            self._connections.keep = False  # hardly anything else than messages is sent
            self.lender.open(self._sender)
        except Exception as error:
            self._has_failed = True
            self.lender.close(explained(error))
        await self._stop.wait()
        self.lender.close()
        await self.lender.settled(timeout_seconds=_LAST_CALLS_SECONDS)
        await self._sender.close()
        await self._connections.close()
