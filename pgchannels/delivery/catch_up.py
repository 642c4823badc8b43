"""Reads from the log what notifications did not bring: large payloads, and all that was missed."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Final

from pgchannels.database.connections import Connections, is_connection_failure
from pgchannels.database.statements.reading import messages_after, messages_with_ids
from pgchannels.database.tables import Schema
from pgchannels.delivery.arrival import Arrival
from pgchannels.delivery.backoff import Backoff
from pgchannels.delivery.router import Router

MOST_HELD: Final = 10_000  # arrivals that wait behind a reading; the log has them all, so more need not be kept
_ROWS_AT_ONCE: Final = 64

logger = logging.getLogger("pgchannels")


class CatchUp:
    """Keeps arrivals in order: while rows are read for one, all behind it wait."""

    def __init__(self, connections: Connections, schema: Schema, router: Router) -> None:
        self._connections = connections
        self._schema = schema
        self._router = router
        self._held: deque[Arrival] = deque()
        self._is_stale = False
        self._holders = 0
        self._work = asyncio.Event()

    def arrive(self, arrival: Arrival) -> None:
        """Take a message from a notification."""
        if not self._work.is_set() and not self._holders and arrival.envelope is not None:
            self._router.route(arrival)
        elif len(self._held) < MOST_HELD:
            self._held.append(arrival)
            self._work.set()
        else:
            self.read_missed()

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let all arrivals wait meanwhile.

        Whoever begins to listen, or to host, holds what comes until the positions are known and what was missed is
        marked to be read: a message that came first would move the position past those that were missed.
        """
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._work.set()

    def read_missed(self) -> None:
        """Read the messages after the positions of all addresses.

        All, also when one would do: what came to one address must not overtake what was sent to another before it.
        """
        self._is_stale = True
        self._work.set()

    async def run(self) -> None:
        """Read whatever there is to read, for ever."""
        backoff = Backoff()
        while True:
            await self._work.wait()
            try:
                await self._read()
            except Exception as error:
                if not is_connection_failure(error):
                    raise
                logger.warning("could not read the log, will try again: %r", error)
                await backoff.pause()
            else:
                backoff.reset()

    async def _read(self) -> None:
        while self._is_stale or (self._held and not self._holders):
            if self._is_stale:
                await self._read_log()
            elif self._held[0].envelope is None and self._router.is_awaited(self._held[0]):
                await self._read_held()
            else:
                self._router.route(self._held.popleft())
        self._work.clear()

    async def _read_log(self) -> None:
        self._is_stale = False
        if len(self._held) >= MOST_HELD:
            self._held.clear()
        try:
            while positions := self._router.positions():
                rows = await self._connections.run(messages_after(self._schema, positions))
                for row in rows:
                    self._router.route(Arrival.from_row(row))
                if not rows:
                    break
        except BaseException:
            self._is_stale = True
            raise

    async def _read_held(self) -> None:
        awaited = (arrival for arrival in self._held if arrival.envelope is None and self._router.is_awaited(arrival))
        large = list(islice(awaited, _ROWS_AT_ONCE))
        envelopes = await self._envelopes_of(large)
        for arrival in large:
            arrival.envelope = envelopes.get(arrival.id)
        if large[0].envelope is None and not await self._fill_in(large[0]):
            self._router.skip(self._held.popleft())

    async def _envelopes_of(self, arrivals: list[Arrival]) -> dict[int, bytes]:
        keys = [(arrival.address, arrival.id) for arrival in arrivals]
        rows = await self._connections.run(messages_with_ids(self._schema, keys))
        return {row.id: row.payload for row in rows}

    async def _fill_in(self, arrival: Arrival) -> bool:
        # A page may have been full before this row: asked for alone, it comes if it is there at all.
        arrival.envelope = (await self._envelopes_of([arrival])).get(arrival.id)
        return arrival.envelope is not None
