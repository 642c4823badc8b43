"""Tells the database which channels of this node are full, so that senders in other processes fail."""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

from pgchannels.database.connections import Connections
from pgchannels.database.retry import repeat
from pgchannels.database.statements.nodes import mark_full, mark_not_full

_LOOK_AGAIN_SECONDS: Final = 0.25


class Fullness:
    """One statement for all that changed meanwhile.

    :param expire: drops what has expired of a full channel, which may then be full no longer.
    """

    def __init__(self, connections: Connections, node: UUID, *, expire: Callable[[str], None]) -> None:
        self._expire = expire
        self._connections = connections
        self._node = node
        self._full: set[str] = set()
        self._surely_marked: set[str] = set()
        self._perhaps_marked: set[str] = set()
        self._work = asyncio.Event()

    def note(self, channel: str, is_full: bool) -> None:
        """Take notice that a channel became full, or is no longer."""
        if is_full:
            self._full.add(channel)
        else:
            self._full.discard(channel)
        self._work.set()

    def tell_again(self) -> None:
        """Tell all: the database may have forgotten this node."""
        self._surely_marked.clear()
        self._work.set()

    async def run(self) -> None:
        """Tell the database what changes, for ever."""
        await repeat(self._tell, what_failed="could not tell senders which channels are full")

    async def _tell(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_AGAIN_SECONDS if self._full else None):
                await self._work.wait()
        except TimeoutError:
            for channel in list(self._full):
                self._expire(channel)
                await asyncio.sleep(0)
        self._work.clear()
        try:
            await self._mark(self._full - self._surely_marked)
            await self._unmark(self._perhaps_marked - self._full)
        except BaseException:
            self._work.set()
            raise

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
