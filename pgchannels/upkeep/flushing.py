"""Knows which nodes a flush waits for, and tells the database that this one has forgotten everything."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

from pgchannels.database.connections import Connections, Records
from pgchannels.database.retry import repeat
from pgchannels.database.statements.nodes import note_flushed


class Flushing:
    """One statement for all flushes meanwhile."""

    def __init__(self, connections: Connections, node: UUID) -> None:
        self._connections = connections
        self._node = node
        self._flushed_until = 0
        self._work = asyncio.Event()

    def note(self, message_id: int) -> None:
        """Take notice that all that came before a message is forgotten."""
        self._flushed_until = message_id
        self._work.set()

    def tell_again(self) -> None:
        """Tell it again: the database may have forgotten this node."""
        if self._flushed_until:
            self._work.set()

    async def run(self) -> None:
        """Tell the database, for ever."""
        await repeat(self._tell, what_failed="could not tell that this node was flushed")

    async def _tell(self) -> None:
        await self._work.wait()
        self._work.clear()
        try:
            await self._connections.ask(note_flushed, self._node, self._flushed_until)
        except BaseException:
            self._work.set()
            raise


class Unflushed:
    """The nodes that a flush waits for.

    :param command: sends a node the command to forget everything; returns its id.
    """

    def __init__(self, command: Callable[[str], Awaitable[int]]) -> None:
        self._command = command
        self._commands: dict[tuple[str, int], int] = {}  # to each node, again in another log: the first may be gone
        self._left: dict[str, tuple[int, float]] = {}  # each with its log, and until when its lease lasts

    async def are_left(self, rows: Records) -> bool:
        """Take the rows of `nodes_to_flush`, and command those that are new; whether there are any to wait for."""
        now, log = asyncio.get_running_loop().time(), rows[0][0] if rows else 0
        nodes = {address: (flushed_until, seconds) for _, address, flushed_until, seconds in rows if address}
        for address in nodes:
            if (address, log) not in self._commands:
                self._commands[address, log] = await self._command(address)
        # Those that a crash took out of the table come back. One that leaves it otherwise has been closed.
        away = {address: known for address, known in self._left.items() if address not in nodes and known[0] != log}
        here = {
            address: (log, now + seconds)
            for address, (flushed_until, seconds) in nodes.items()
            if flushed_until < self._commands[address, log]
        }
        self._left = {address: known for address, known in (away | here).items() if known[1] > now}
        return bool(self._left)
