"""Reports to the database what others must know about a node: its full channels, and how far it has been flushed."""

import asyncio
from uuid import UUID

from pgchannels.database.chore import Chore
from pgchannels.database.connections import Connections
from pgchannels.database.statements.nodes import mark_full, mark_not_full, note_flushed


class Reports:
    """Reports everything that changed meanwhile in one statement."""

    def __init__(self, connections: Connections, node: UUID) -> None:
        self._connections = connections
        self._node = node
        self._full: set[str] = set()
        self._surely_marked: set[str] = set()
        self._perhaps_marked: set[str] = set()
        self._flushed_until = 0
        self._fullness = Chore(self._tell_fullness, what_failed="could not tell senders which channels are full")
        self._flushing = Chore(self._tell_flushed, what_failed="could not tell that this node was flushed")

    def note_full(self, channel: str, is_full: bool) -> None:
        """Record that a channel became full, or no longer is."""
        if is_full:
            self._full.add(channel)
        else:
            self._full.discard(channel)
        self._fullness.ask()

    def note_flushed(self, message_id: int) -> None:
        """Record that everything before a message is forgotten."""
        self._flushed_until = message_id
        self._flushing.ask()

    def tell_again(self) -> None:
        """Report everything again: the database may have forgotten this node."""
        self._surely_marked.clear()
        self._fullness.ask()
        if self._flushed_until:
            self._flushing.ask()

    async def run(self) -> None:
        """Report changes to the database, forever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._fullness.run())
            both.create_task(self._flushing.run())

    async def _tell_fullness(self) -> None:
        await self._mark(self._full - self._surely_marked)
        await self._unmark(self._perhaps_marked - self._full)

    async def _mark(self, channels: set[str]) -> None:
        self._perhaps_marked |= channels
        if channels:
            await self._connections.ask(mark_full, self._node, channels)
        self._surely_marked |= channels

    async def _unmark(self, channels: set[str]) -> None:
        self._surely_marked -= channels
        if channels:
            await self._connections.ask(mark_not_full, channels)
        self._perhaps_marked -= channels

    async def _tell_flushed(self) -> None:
        await self._connections.ask(note_flushed, self._node, self._flushed_until)
