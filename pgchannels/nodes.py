"""The nodes of one process: one in each event loop that receives, and a background sender for everybody else."""

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TypeVar

from pgchannels.background import BackgroundSender
from pgchannels.database.connections import Database
from pgchannels.errors import DatabaseUnavailable, WouldBlock
from pgchannels.node import Node
from pgchannels.options import Options
from pgchannels.sender import Sender

T = TypeVar("T")


class Nodes:
    """Safe to use from any thread. After a fork the child begins with none.

    :param idle_seconds: after so long without a message the background sender gives its connection back until the next.
    """

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None = None) -> None:
        self._database = database
        self._options = options
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._nodes: dict[asyncio.AbstractEventLoop, Node] = {}
        self._opening: dict[asyncio.AbstractEventLoop, asyncio.Task[Node]] = {}
        self._background: BackgroundSender | None = None
        self._process = os.getpid()
        self._of_the_parent: list[object] = []

    async def open(self) -> Node:
        """The node of the running loop, opened if there is none. Callers at the same time get the same one."""
        self._check_process()
        loop = asyncio.get_running_loop()
        if node := self._nodes.get(loop):
            return node
        opening = self._opening.get(loop)
        if opening is None:
            opening = self._opening[loop] = asyncio.create_task(self._open(loop), name="pgchannels open")
            opening.add_done_callback(lambda opened: self._forget_opening(loop, opened))
        return await asyncio.shield(opening)

    def here(self) -> Node | None:
        """The open node of the running loop."""
        self._check_process()
        return self._nodes.get(asyncio.get_running_loop())

    async def close(self) -> None:
        """Close the node of the running loop and, when no other is left, the background sender."""
        self._check_process()
        if node := self.here():
            await node.close()
        if not self._nodes:
            await asyncio.to_thread(self._stop_background)

    async def send(self, send: Callable[[Sender], Awaitable[T]]) -> T:
        """Run `send` with this loop's own sender, else with one that the process has.

        :raises DatabaseUnavailable: a borrowed sender did not answer in time.
        """
        if node := self.here():
            return await send(node.sender)
        try:
            async with asyncio.timeout(2 * self._options.send_timeout):
                return await asyncio.wrap_future(self._borrow(send))
        except TimeoutError:
            raise _no_answer() from None

    def send_blocking(self, send: Callable[[Sender], Awaitable[T]]) -> T:
        """Run `send` with a sender that the process has, and wait for it in a thread without an event loop.

        :raises WouldBlock: an event loop runs in this thread.
        :raises DatabaseUnavailable: the sender did not answer in time.
        """
        self._check_process()
        if asyncio._get_running_loop() is not None:
            raise WouldBlock("this call would block the event loop of this thread: await the asynchronous one here")
        try:
            return self._borrow(send).result(2 * self._options.send_timeout)
        except TimeoutError:
            raise _no_answer() from None

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Node:
        node = Node(self._database, self._options, on_closed=lambda: self._forget(loop))
        await node.open()
        self._nodes[loop] = node
        await asyncio.to_thread(self._stop_background)  # the node sends for all from now on
        return node

    def _borrow(self, send: Callable[[Sender], Awaitable[T]]) -> "Future[T]":
        for loop, node in list(self._nodes.items()):
            if loop.is_running():
                return asyncio.run_coroutine_threadsafe(_awaited(send(node.sender)), loop)
        with self._lock:
            if self._background is not None and self._background.has_failed:
                self._background.stop()
                self._background = None
            if self._background is None:
                self._background = BackgroundSender(self._database, self._options, idle_seconds=self._idle_seconds)
                self._background.start()
                # A layer that is thrown away without `close`, as by a test that overrides settings, leaves no thread.
                weakref.finalize(self, self._background.end).atexit = False
            return self._background.submit(send)

    def _stop_background(self) -> None:
        with self._lock:
            background, self._background = self._background, None
        if background is not None:
            background.stop()

    def _forget_opening(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Task[Node]) -> None:
        self._opening.pop(loop, None)
        if not opened.cancelled():
            opened.exception()  # marks it as seen: whoever waited may have been cancelled

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._nodes.pop(loop, None)

    def _check_process(self) -> None:
        if self._process == os.getpid():
            return
        # The parent's sockets are not this process's to close: keep them, untouched, for its lifetime.
        self._of_the_parent += [self._nodes, self._opening, self._background]
        self._lock = threading.Lock()
        self._nodes, self._opening, self._background = {}, {}, None
        self._process = os.getpid()


def _no_answer() -> DatabaseUnavailable:
    return DatabaseUnavailable(
        "the event loop that sends for this process did not answer: the message may have been sent",
        may_have_been_sent=True,
    )


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable
