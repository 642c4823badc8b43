"""Asks for one node whether anything is new, where LISTEN cannot pass."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

import asyncpg

from pgchannels.database.compiling import compiled
from pgchannels.database.connections import Connections
from pgchannels.database.extent import Extent
from pgchannels.database.failures import is_connection_failure
from pgchannels.database.retry import repeat
from pgchannels.database.statements.nodes import disown_session
from pgchannels.database.statements.reading import look
from pgchannels.options import Options
from pgchannels.receiving.listener import Probe
from pgchannels.receiving.unread import Look, Unread

_OPEN_TIMEOUT_SECONDS: Final = 30
_SHORTEST_PAUSE_SECONDS: Final = 0.02

logger: logging.Logger = logging.getLogger("pgchannels")


class Reader(Protocol):
    """Reads the log when it is told to."""

    def begin(self) -> None:
        """Record that nothing is known until `beat` has first returned."""

    async def beat(self, probe: Probe) -> None:
        """Keep the node alive in the database."""

    async def read_new(self) -> bool:
        """Read everything that has not been read; return whether there was anything for this node."""

    def note_nothing_new(self, extent: Extent) -> None:
        """Record that everything up to the last id of the log has been read."""

    def deliver_undelivered(self) -> None:
        """Deliver what transactions have left."""

    def lost(self) -> None:
        """Record that the database cannot be reached."""

    def back(self) -> None:
        """Record that it is reached again."""


class Poller:
    """Looks at the log at least every `poll` seconds, and has it read if it may have anything new.

    After something new, the next look follows soon; each that finds nothing doubles the pause. Whatever else the node
    asks regularly, it asks with a look, so that a database without traffic is called no more often than that.

    :param beat_due: set to request a heartbeat before it is due.
    :param on_beat: called after each heartbeat.
    """

    def __init__(
        self,
        connections: Connections,
        node: UUID,
        reader: Reader,
        options: Options,
        *,
        beat_due: asyncio.Event,
        on_beat: Callable[[], None],
    ) -> None:
        assert options.poll is not None
        self._connections = connections
        self._node = node
        self._reader = reader
        self._unread = Unread()
        self._longest_seconds = options.poll
        self._beat_seconds = options.beat_seconds
        self._next_beat = 0.0
        self._pause_seconds = 0.0
        self._on_beat = on_beat
        self.beat_due: asyncio.Event = beat_due
        self._look_due = asyncio.Event()
        self._is_interrupted = False
        self.reconnected: int = 0
        self.looks: int = 0

    async def open(self) -> None:
        """Send the first heartbeat; raises what the database raises."""
        async with asyncio.timeout(_OPEN_TIMEOUT_SECONDS):
            self._reader.begin()
            await self._beat()

    async def run(self) -> None:
        """Look and send heartbeats, forever."""
        await repeat(self._look_later, what_failed="could not ask for new messages")

    def look_soon(self) -> None:
        """Look now: there is something new."""
        self._pause_seconds = 0
        self._look_due.set()

    async def close(self) -> None:
        """Do nothing: there is no connection of its own."""

    async def _look_later(self) -> None:
        await self._wait_until_due()
        try:
            await self._look()
        except Exception as error:
            if is_connection_failure(error):
                self._note_interruption()
            raise
        self._note_success()

    async def _wait_until_due(self) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (self.beat_due, self._look_due)]
        try:
            await asyncio.wait(waits, timeout=self._pause_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        self._look_due.clear()

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.beat_due.is_set() or now >= self._next_beat:
            await self._beat()
        [row] = await self._connections.fetch(look)
        self.looks += 1
        extent, (has_undelivered, oldest, following) = Extent.from_row(row), row[:3]
        if has_undelivered:
            self._reader.deliver_undelivered()
        is_busy = False
        if self._unread.is_left(Look(extent.last_id, oldest, following)):
            is_busy = await self._read()
        else:
            self._reader.note_nothing_new(extent)
        self._set_pause(is_busy=is_busy)

    async def _read(self) -> bool:
        try:
            async with asyncio.timeout(self._beat_seconds):  # the lease is renewed meanwhile
                return await self._reader.read_new()
        except TimeoutError:
            self._unread.forget()
            return True

    def _set_pause(self, *, is_busy: bool) -> None:
        grown = max(2 * self._pause_seconds, _SHORTEST_PAUSE_SECONDS)
        self._pause_seconds = min(_SHORTEST_PAUSE_SECONDS if is_busy else grown, self._longest_seconds)

    async def _beat(self) -> None:
        self.beat_due.clear()
        await self._reader.beat(self._probe)
        self._next_beat = asyncio.get_running_loop().time() + self._beat_seconds
        self._on_beat()

    async def _probe(self, text: str, *arguments: object, behind_token: tuple[object, ...] = ()) -> "asyncpg.Record":
        # The session may be anybody's: that it ends does not mean that this node is gone.
        disowning = compiled(disown_session(self._connections.schema, self._node))
        [row] = await self._connections.fetch_text(text, *arguments, "", *behind_token, then=disowning)
        return row

    def _note_interruption(self) -> None:
        if not self._is_interrupted:
            self._is_interrupted = True
            logger.warning("the database cannot be asked for new messages")
            self._reader.lost()

    def _note_success(self) -> None:
        if self._is_interrupted:
            self._is_interrupted = False
            self.reconnected += 1
            logger.warning("the database can be asked for new messages again")
            self._reader.back()
