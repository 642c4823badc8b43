"""One layer in one process: a node in each event loop that receives, and a shared sender for everybody else."""

import asyncio
import atexit
import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from pgchannels.database.database import Database
from pgchannels.database.wording import Place
from pgchannels.errors import LayerClosed, WouldBlock
from pgchannels.messages import Position
from pgchannels.options import Options
from pgchannels.points import Point, require_no_server, require_point
from pgchannels.process.background import BackgroundSender
from pgchannels.process.closed_loops import end_tasks
from pgchannels.process.node import Node
from pgchannels.process.opening import Opening
from pgchannels.process.shared_sender import BlockingSender, SharedSender
from pgchannels.sending.outbox import Outbox
from pgchannels.sending.outgoing import Outgoing, Packer
from pgchannels.sending.sender import Sender


class Process:
    """Safe to use from any thread. After a fork, the child begins with nothing.

    :param idle_seconds: after this long without a message, the background sender closes its connection until the next.
    """

    def __init__(self, database: Database, options: Options, *, idle_seconds: float | None = None) -> None:
        self._database = database = database.reached_as(options)
        self._options = options
        self.packer: Packer = Packer(options)
        self._outbox = Outbox(options, lambda: database.place)
        self._new_background = partial(BackgroundSender, database, options, idle_seconds=idle_seconds)
        if hasattr(os, "register_at_fork"):  # not on every system
            begin_anew = weakref.WeakMethod(self._begin_anew)
            os.register_at_fork(after_in_child=lambda: (begin := begin_anew()) and begin())
        self._begin()

    async def open(self, *, in_any_case: bool = False, known_as: str | None = None, is_late: bool = False) -> Node:
        """Return the node of the running loop, opened if there is none. Concurrent callers get the same one.

        If all of them are cancelled, none stays open, unless one wants it `in_any_case`: a caller that retries, each
        time waiting for less than opening takes, would otherwise wait forever.

        :param known_as: the name of the node, if it is opened.
        :param is_late: others know that name already: the node receives what was sent to it before.
        :raises LayerClosed: the layer was closed meanwhile.
        """
        self._tidy()
        loop = asyncio.get_running_loop()
        opening = self._opening.get(loop)
        if opening is None:
            if (node := self._nodes.get(loop)) and not node.is_closing:
                return node
            opening = self._opening[loop] = Opening(
                self._open(loop, known_as, is_late), on_end=lambda: self._opening.pop(loop)
            )
        return await opening.wait(in_any_case=in_any_case)

    def position_of(self, _: Outgoing, message_id: int) -> Position:
        """Return where a message stands that was sent."""
        return Position.from_id(message_id)

    def point(self, name: str, value: object) -> Point:
        """Return the point that an argument stands for; raises `InvalidPosition`."""
        return require_no_server(name, require_point(name, value))

    @property
    def place(self) -> Place:
        """Which database it uses, for errors."""
        return self._database.place

    def here(self) -> Node | None:
        """Return the open node of the running loop; one that has failed does not count."""
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
        """Stop the background sender, until somebody without a node sends again."""
        self._tidy()
        self._background.stop()

    def sender(self) -> Sender | SharedSender:
        """Return what sends for the running loop: its own sender, or the shared one."""
        node = self.here()
        if node is None or len(self._nodes) > 1:
            self._tidy()
        return self._shared_sender if node is None else node.sender

    def sender_for(self, channel: str) -> Node | Sender | SharedSender:
        """Return what sends to a channel, and adds it to topics: the loop's node, if the channel is its own."""
        node = self.here()
        return node if node is not None and node.receiver.owns(channel) else self.sender()

    def blocking_sender(self) -> BlockingSender:
        """Return what sends for a thread without an event loop.

        :raises WouldBlock: an event loop runs in this thread.
        """
        if asyncio._get_running_loop() is not None:
            raise WouldBlock("this call would block the event loop of this thread: await the asynchronous one here")
        self._tidy()
        return self._blocking_sender

    async def enqueue(self, messages: Sequence[Outgoing], connection: object) -> None:
        """Put messages into the transaction of a connection of the application; see `Outbox.put`."""
        await self._outbox.put(messages, connection, name_database=lambda: self.sender().database_name())

    def enqueue_blocking(self, messages: Sequence[Outgoing], connection: object) -> None:
        """As `enqueue`, for a connection that blocks."""
        self._outbox.put_blocking(messages, connection, name_database=lambda: self.blocking_sender().database_name())

    async def _open(self, loop: asyncio.AbstractEventLoop, known_as: str | None, is_late: bool) -> Node:
        if closing := self._nodes.get(loop):
            await closing.close()
        node = Node(self._database, self._options, on_closed=lambda: self._forget(loop), known_as=known_as)
        await node.open(is_late=is_late)
        self._nodes[loop] = node
        try:
            await self._background_stopped()  # what was sent before must arrive first
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
        if self._process != os.getpid():  # a fork that Python does not know of, as in some servers written in C
            self._begin_anew()
        self.sweep_closed_loops()

    def sweep_closed_loops(self) -> None:
        """Release what is left in event loops that were closed without cancelling their tasks."""
        for loop in [loop for loop in (*self._nodes, *self._opening) if loop.is_closed()]:
            self._sweep(loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Release what a loop still holds after it was closed without cancelling its tasks."""
        self._opening.pop(loop, None)
        node = self._nodes.pop(loop, None)
        if node is not None:
            node.abandon()
        end_tasks(loop)
        if node is not None:  # a flush would wait for its lease
            self._background.submit(lambda sender: sender.remove_node(node.identity.id))

    def _begin_anew(self) -> None:
        keep_for_ever([self._nodes, self._opening, self._background])
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._nodes: dict[asyncio.AbstractEventLoop, Node] = {}
        self._opening: dict[asyncio.AbstractEventLoop, Opening[Node]] = {}
        self._background = self._new_background()
        self._shared_sender = SharedSender(self._background)
        self._blocking_sender = BlockingSender(self._background)
        at_exit = partial(_end_at_exit, weakref.ref(self), self._background)
        atexit.register(at_exit)  # now: exit handlers registered later run earlier, and can send
        # A layer that is dropped without `close`, as by a test that overrides settings, leaves no thread behind.
        weakref.finalize(self, _throw_away, self._background, at_exit).atexit = False


def _throw_away(background: BackgroundSender, at_exit: Callable[[], object]) -> None:
    atexit.unregister(at_exit)
    background.end()


def _end_at_exit(reference: "weakref.ref[Process]", background: BackgroundSender) -> None:
    if (process := reference()) is not None:
        with suppress(LayerClosed):  # no thread can be started any more
            process.sweep_closed_loops()
    background.stop()


def keep_for_ever(belongings_of_the_parent: object) -> None:
    """Keep what a child of a fork has from its parent."""
    # A reference that is never released. At the child's exit, Python would collect the parent's tasks, sockets and
    # loops: they would complain, and might remove the parent's sockets from the epoll that both processes share.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(belongings_of_the_parent))
