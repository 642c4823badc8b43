"""The nodes of one process: one in each event loop that receives, and a background sender for everybody else."""

import asyncio
import ctypes
import os
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from pgchannels.database.database import Database
from pgchannels.errors import LayerClosed, WouldBlock, copy_of
from pgchannels.options import Options
from pgchannels.process.background import BackgroundSender, Request
from pgchannels.process.closed_loops import end_tasks
from pgchannels.process.node import Node

T = TypeVar("T")


class Nodes:
    """Safe to use from any thread. After a fork the child begins with none.

    :param idle_seconds: after so long without a message the background sender gives its connection back until the next.
    """

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None = None) -> None:
        self._database = database
        self._options = options
        self._new_background = partial(BackgroundSender, database, options, idle_seconds=idle_seconds)
        if hasattr(os, "register_at_fork"):  # not on every system
            begin_anew = weakref.WeakMethod(self._begin_anew)
            os.register_at_fork(after_in_child=lambda: (begin := begin_anew()) and begin())
        self._begin()

    async def open(self, *, in_any_case: bool = False) -> Node:
        """The node of the running loop, opened if there is none. Callers at the same time get the same one.

        When all of them are cancelled, none stays open, unless one wants it `in_any_case`: who waits again and again,
        each time for less than it takes, would otherwise wait for ever.

        :raises LayerClosed: the layer was closed meanwhile.
        """
        self._tidy()
        loop = asyncio.get_running_loop()
        opening = self._opening.get(loop)
        if opening is None:
            if (node := self._nodes.get(loop)) and not node.is_closing:
                return node
            opening = self._opening[loop] = _Opening(self._open(loop), on_end=lambda: self._opening.pop(loop))
        return await opening.wait(in_any_case=in_any_case)

    def here(self) -> Node | None:
        """The open node of the running loop; one that has failed is none."""
        node = self._nodes.get(asyncio.get_running_loop())
        return None if node is None or node.has_failed else node

    async def close(self) -> None:
        """Close the node of the running loop and, when no other is left, the background sender."""
        self._tidy()
        if opening := self._opening.get(asyncio.get_running_loop()):
            await opening.close()
        if node := self._nodes.get(asyncio.get_running_loop()):
            await node.close()
        if not self._nodes:
            await self._background_stopped()

    def stop_background(self) -> None:
        """Stop sending for those who have no node, until somebody sends again."""
        self._tidy()
        self._background.stop()

    def send(self, request: Request[T]) -> Awaitable[T]:
        """Run a request with this loop's own sender, else with the background sender; raises as that does."""
        node = self.here()
        if node is None or len(self._nodes) > 1:
            self._tidy()
        return self._background.send(request) if node is None else request(node.sender)

    def send_blocking(self, request: Request[T]) -> T:
        """Run a request with the background sender, and wait for it in a thread without an event loop.

        :raises WouldBlock: an event loop runs in this thread.
        """
        if asyncio._get_running_loop() is not None:
            raise WouldBlock("this call would block the event loop of this thread: await the asynchronous one here")
        self._tidy()
        return self._background.send_blocking(request)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> Node:
        if closing := self._nodes.get(loop):
            await closing.close()
        node = Node(self._database, self._options, on_closed=lambda: self._forget(loop))
        await node.open()
        self._nodes[loop] = node
        try:
            await self._background_stopped()  # what was sent before must come first
        except BaseException:
            await node.close()
            raise
        return node

    async def _background_stopped(self) -> None:
        if self._background.is_running:
            await asyncio.to_thread(self._background.stop)

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._nodes.pop(loop, None)

    def _tidy(self) -> None:
        if self._process != os.getpid():  # a fork that Python was not told of, as some servers written in C make it
            self._begin_anew()
        for loop in [loop for loop in (*self._nodes, *self._opening) if loop.is_closed()]:
            self._sweep(loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give back what a loop has kept that was closed without cancelling its tasks."""
        self._opening.pop(loop, None)
        node = self._nodes.pop(loop, None)
        if node is not None:
            node.abandon()
            self._background.submit(
                lambda sender: sender.remove_node(node.identity.id)
            )  # a flush would wait for its lease
        end_tasks(loop)

    def _begin_anew(self) -> None:
        _keep_for_ever([self._nodes, self._opening, self._background])
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._nodes: dict[asyncio.AbstractEventLoop, Node] = {}
        self._opening: dict[asyncio.AbstractEventLoop, _Opening] = {}
        self._background = self._new_background()
        # A layer that is thrown away without `close`, as by a test that overrides settings, leaves no thread.
        weakref.finalize(self, self._background.end).atexit = False


class _Opening:
    """A node that is being opened for all who wait; it ends with the first who gets it, or the last who leaves."""

    def __init__(self, opening: Coroutine[Any, Any, Node], *, on_end: Callable[[], object]) -> None:
        self._task = asyncio.create_task(opening, name="pgchannels open")
        self._on_end = on_end
        self._task.add_done_callback(self._forget_failure)
        self._waiting = 0
        self._is_wanted = False
        self._has_ended = False
        self._is_closed = False

    async def wait(self, *, in_any_case: bool) -> Node:
        """The open node."""
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
        """Open no node; one that is open already is closed."""
        self._is_closed = True
        self._give_up()
        await asyncio.wait([self._task])

    def _node(self) -> Node:
        error = asyncio.CancelledError() if self._task.cancelled() else self._task.exception()
        if error is None:
            return self._task.result()
        if self._is_closed:
            raise LayerClosed("the layer was closed while it was opened") from error
        raise copy_of(error)

    def _forget_failure(self, opened: asyncio.Task[Node]) -> None:
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


def _keep_for_ever(belongings_of_the_parent: object) -> None:
    # A reference that nobody gives back. At a child's exit Python would collect the parent's tasks, sockets and loops:
    # they complain of that, and may take the parent's sockets out of the epoll that both processes share.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(belongings_of_the_parent))
