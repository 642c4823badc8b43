"""The nodes that a flush waits for."""

import asyncio
from collections.abc import Awaitable, Callable

from pgchannels.database.driver import Records
from pgchannels.errors import DatabaseUnavailable


class Unflushed:
    """The nodes that a flush waits for.

    :param command: sends a node the command to forget everything; returns its id.
    """

    def __init__(self, command: Callable[[str], Awaitable[int]]) -> None:
        self._command = command
        self._commands: dict[tuple[str, int], int] = {}  # by node and log: in another log, the first may be gone
        self._left: dict[str, tuple[int, float]] = {}  # each with its log, and the end of its lease

    async def are_left(self, rows: Records) -> bool:
        """Take the rows of `nodes_to_flush`, and command those that are new; return whether any are left."""
        now, log = asyncio.get_running_loop().time(), rows[0][0] if rows else 0
        nodes = {address: (flushed_until, seconds) for _, address, flushed_until, seconds in rows if address}
        for address, (_, seconds) in nodes.items():
            if (address, log) not in self._commands:
                self._left[address] = log, now + seconds
                try:
                    self._commands[address, log] = await self._command(address)
                except DatabaseUnavailable as error:
                    if not error.may_have_been_sent:
                        raise
                    return True  # a crash may have lost it: another log may need it again
        # Nodes that a crash removed from the table come back. One that left it in another way was closed.
        away = {address: known for address, known in self._left.items() if address not in nodes and known[0] != log}
        here = {
            address: (log, now + seconds)
            for address, (flushed_until, seconds) in nodes.items()
            if flushed_until < self._commands[address, log]
        }
        self._left = {address: known for address, known in (away | here).items() if known[1] > now}
        return bool(self._left)
