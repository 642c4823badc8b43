"""Reads from the log what notifications did not bring: large payloads, and all that was missed."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final

from pgchannels.database.connections import Connections
from pgchannels.database.retry import repeat
from pgchannels.database.statements.reading import extent, messages_after, messages_with_ids
from pgchannels.database.tables import Schema
from pgchannels.messages import Gap, GapReason, Position
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.reach import Reach
from pgchannels.receiving.router import Router

MOST_HELD: Final = 10_000  # arrivals that wait behind a reading; the log has them all, so more need not be kept
_ROWS_AT_ONCE: Final = 64
LONGEST_DELIVERY_SECONDS: Final = 5  # from taking an id to the commit


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
        self._completeness = Completeness()

    def arrive(self, arrival: Arrival) -> None:
        """Take a message from a notification."""
        if self._completeness.is_past(arrival.id):
            return
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
        except BaseException:
            self._is_stale = True  # what was heard meanwhile may have come behind something missed
            raise
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
        await repeat(self._read_when_asked, what_failed="could not read the log")

    async def _read_when_asked(self) -> None:
        await self._work.wait()
        await self._read()

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
            reach = Reach(await self.look_for_gaps())
            while not reach.is_complete:
                reach.note_page(await self._read_page(up_to=reach.until))
            self._completeness.note_read(now=asyncio.get_running_loop().time())
        except BaseException:
            self._is_stale = True
            raise

    async def _read_page(self, *, up_to: int) -> list[int]:
        positions = self._router.positions()
        rows = await self._connections.run(messages_after(self._schema, positions, up_to=up_to)) if positions else []
        await self.look_for_gaps([Arrival.from_row(row) for row in rows])
        return [row.id for row in rows]

    async def look_for_gaps(self, arrivals: Sequence[Arrival] = ()) -> int:
        """Tell all receivers when the log has lost what this node has not read; returns the greatest id so far.

        Delivers messages that were just read: those of a log that is gone since before that gap, others behind it.
        """
        [seen] = await self._connections.run(extent(self._schema))
        reason = self._completeness.compare(seen.began_at, seen.gone_until, seen.last_id)
        is_past = self._completeness.is_past
        for arrival in arrivals:
            if is_past(arrival.id):
                self._router.route(arrival)
        if reason is not None:
            self._router.lose(Gap(reason, None))
        if reason is GapReason.CRASH:
            self._is_stale = True
            # What was heard before the crash comes behind what was lost in it, and counts as lost with it.
            self._held = deque(held for held in self._held if not is_past(held.id))
        for arrival in arrivals:
            if not is_past(arrival.id):
                self._router.route(arrival)
        return int(seen.last_id)

    def may_follow_a_gap(self, message_id: int) -> bool:
        """Whether a message is of a later log than the one that this node has read."""
        return Position.from_id(message_id).epoch > Position.from_id(self._completeness.began_at).epoch

    async def _read_held(self) -> None:
        awaited = (arrival for arrival in self._held if arrival.envelope is None and self._router.is_awaited(arrival))
        large = list(islice(awaited, _ROWS_AT_ONCE))
        envelopes = await self._envelopes_of(large)
        for arrival in large:
            arrival.envelope = envelopes.get(arrival.id)
        if large[0].envelope is None and not await self._fill_in(large[0]):
            await self.look_for_gaps()  # a crash explains it: then it is forgotten there
            if self._held and self._held[0] is large[0]:
                self._router.route(self._held.popleft())

    async def _envelopes_of(self, arrivals: list[Arrival]) -> dict[int, bytes]:
        keys = [(arrival.address, arrival.id) for arrival in arrivals]
        rows = await self._connections.run(messages_with_ids(self._schema, keys))
        return {row.id: row.payload for row in rows}

    async def _fill_in(self, arrival: Arrival) -> bool:
        # A page may have been full before this row: asked for alone, it comes if it is there at all.
        arrival.envelope = (await self._envelopes_of([arrival])).get(arrival.id)
        return arrival.envelope is not None


class Completeness:
    """Up to which id this node has read all that there was; later ids that leave the log are a gap."""

    def __init__(self) -> None:
        self.began_at: int = 0
        self._read_until: int | None = None
        self._last_id = 0
        self._older_last_id = 0
        self._older_since = 0.0

    def compare(self, began_at: int, gone_until: int, last_id: int) -> GapReason | None:
        """Take the extent of the log, and tell whether and why something was lost since it was last read."""
        read_until, self._last_id, self.began_at = self._read_until, last_id, began_at
        if read_until is None:
            self._begin(last_id)
            return None
        if gone_until <= read_until:
            return None
        self._begin(last_id)
        return GapReason.CRASH if read_until < began_at else GapReason.EXPIRED

    def is_past(self, message_id: int) -> bool:
        """Whether a message is of an earlier log than the one that was last compared."""
        return message_id < self.began_at

    def note_read(self, *, now: float) -> None:
        """Note that all was read that was there at the last comparison."""
        # A message may be committed some time after its id was taken: only old ids are known to be complete.
        if now - self._older_since >= LONGEST_DELIVERY_SECONDS:
            self._read_until, self._older_last_id, self._older_since = self._older_last_id, self._last_id, now

    def _begin(self, last_id: int) -> None:
        self._read_until = self._older_last_id = last_id
