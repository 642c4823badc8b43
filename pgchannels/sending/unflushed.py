"""The nodes that a flush waits for."""

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

    async def are_left(self, rows: Records) -> bool:
        """Take the rows of `nodes_to_flush`, and command those that are new; return whether any are left."""
        is_left = False
        for log, address, flushed_until in rows:
            if address is None:
                continue  # there is no living node
            if flushed_until is None:
                is_left = True  # it comes back, or its lease ends
                continue
            if (address, log) not in self._commands:
                try:
                    self._commands[address, log] = await self._command(address)
                except DatabaseUnavailable as error:
                    if not error.may_have_been_sent:
                        raise
                    return True  # a crash may have lost it: another log may need it again
            is_left |= flushed_until < self._commands[address, log]
        return is_left
