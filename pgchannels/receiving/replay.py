"""Reads what subscribers missed from the log, for many of them at once."""

import asyncio
import logging
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from pgchannels.database.extent import Extent
from pgchannels.database.failures import is_connection_failure
from pgchannels.database.retry import repeat
from pgchannels.database.statements.reading import PAGE_ROWS
from pgchannels.database.wording import explained
from pgchannels.errors import ConfigurationError, LayerClosed, PgChannelsError, copy_of
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.arrival import GREATEST_ID, Arrival
from pgchannels.receiving.catch_up import CatchUp
from pgchannels.receiving.log import Log, Page
from pgchannels.receiving.mailbox import Item, joined_news
from pgchannels.receiving.router import Recipient, Router

_CURSORS_AT_ONCE: Final = 200
_FEWEST_OF_EACH: Final = 10

logger: logging.Logger = logging.getLogger("pgchannels")


class Subscriber(Recipient, Protocol):
    """Takes what the router delivers, until it is closed."""

    def close(self, error: Exception) -> None:
        """Accept no more; the receiver gets the error."""


class Cursor:
    """Where a subscription stands in the log, until it catches up and the router delivers to its mailbox.

    `items` holds what was read but not yet received: messages and gaps.
    """

    def __init__(self, key: Hashable, mailbox: Subscriber, positions: Mapping[str, int]) -> None:
        self.key = key
        self.mailbox: Subscriber = mailbox
        self.positions: dict[str, int] = dict(positions)
        self.items: deque[Item] = deque()
        self.is_finished: bool = False  # the mailbox gets the rest, or nobody wants it
        self._identity: int | None = None
        self._accounted_until = 0

    @property
    def is_ready(self) -> bool:
        """Whether there is something to receive, from here or from the mailbox."""
        return bool(self.items) or self.is_finished

    def meet(self, extent: Extent, *, last_id: int) -> bool:
        """Take the extent of the log; return whether the positions belong to this log. If not, start over."""
        known, self._identity = self._identity, extent.identity
        if known is None:
            self.positions = {address: extent.place_of(position) for address, position in self.positions.items()}
        position = max(self.positions.values())
        if known is None:
            if position <= last_id and not extent.leaves_out(position):
                return True
            begin = 0 if position > last_id else position
        elif extent.continues(known, position):
            return True
        else:
            begin = extent.begin_after(known, position)
        self.positions = {
            address: read if known is not None and extent.still_has(known, read) else begin
            for address, read in self.positions.items()
        }
        self._accounted_until = max(extent.gone_until, begin)
        self.items.append(Gap(GapReason.CRASH, None))
        return False

    def may_lack(self, gone_until: int) -> bool:
        """Whether messages after its positions may be gone, given up to where that is so of any address."""
        return gone_until > max(self._accounted_until, min(self.positions.values()))

    def lacks(self, gone_until: Mapping[str, int]) -> bool:
        """Whether messages after its positions may be gone, given up to where that is so of each address."""
        return any(
            gone_until.get(address, 0) > max(self._accounted_until, position)
            for address, position in self.positions.items()
        )

    def take(
        self,
        page: Page,
        arrivals: Mapping[str, Sequence[Arrival]],
        gone_until: Mapping[str, int],
        *,
        began_at: int,
    ) -> bool:
        """Take this cursor's part of a page; return whether that was all there is."""
        until = min(page.until[address] for address in self.positions)
        if self.lacks(gone_until):
            is_crash = min(self.positions.values()) < began_at
            self.items.append(Gap(GapReason.CRASH if is_crash else GapReason.EXPIRED, None))
            self._accounted_until = page.gone_until
        new = [
            arrival
            for address, position in self.positions.items()
            for arrival in arrivals.get(address, ())
            if position < arrival.id <= until
        ]
        for arrival in sorted(new, key=lambda arrival: arrival.id) if len(self.positions) > 1 else new:
            # Advance only its own address: for another one, a smaller id may be committed later.
            self.positions[arrival.address] = arrival.id
            if arrival.envelope is not None:
                self.items.append(arrival)
            else:
                self._lose(Gap(GapReason.EXPIRED, 1))
        if until < GREATEST_ID:
            return False
        self._accounted_until = max(self._accounted_until, page.filled_until)
        return True

    def _lose(self, gap: Gap) -> None:
        joined = joined_news(self.items[-1], gap) if self.items else None
        if joined is None:
            self.items.append(gap)
        else:
            self.items[-1] = joined


class Replays:
    """Reads for all waiting subscriptions at once; none asks again before it has received its previous page."""

    def __init__(self, log: Log, router: Router, catch_up: CatchUp) -> None:
        self._log = log
        self._router = router
        self._catch_up = catch_up
        self._asking: dict[Cursor, asyncio.Future[None]] = {}
        self._work = asyncio.Event()
        self._error: Exception | None = None

    async def read_on(self, cursor: Cursor) -> None:
        """Wait until the cursor is ready, also while the database is away. Cancelling this loses nothing."""
        while not cursor.is_ready:
            await asyncio.wait([self.ask(cursor)])

    def ask(self, cursor: Cursor) -> "asyncio.Future[None]":
        """Request the next page for a cursor that is not ready; the future is done when that may have changed."""
        if self._error is not None:
            raise copy_of(self._error)
        if cursor not in self._asking:
            self._asking[cursor] = asyncio.get_running_loop().create_future()
            self._work.set()
        return self._asking[cursor]

    async def run(self) -> None:
        """Read whatever is due, forever."""
        await repeat(self._read, what_failed="could not read what subscriptions missed")

    def forget(self, cursor: Cursor) -> None:
        """Stop reading for a subscription."""
        cursor.is_finished = True
        self._answer(cursor)

    def close(self, error: Exception) -> None:
        """End every wait with an error."""
        self._error = error
        for cursor in list(self._asking):
            self._answer(cursor)

    async def _read(self) -> None:
        await self._work.wait()
        cursors = self._next_cursors()
        if not cursors:
            self._work.clear()
            return
        await self._read_for(cursors)

    async def _read_for(self, cursors: Sequence[Cursor]) -> None:
        """Read a page for some cursors; a failure for one of them ends only that one."""
        try:
            await self._read_page(cursors)
        except Exception as error:
            if is_connection_failure(error) or isinstance(error, ConfigurationError):
                raise
            if len(cursors) == 1:
                self._fail(cursors[0], error)
                return
            for cursor in cursors:
                await self._read_for([cursor])

    async def _read_page(self, cursors: Sequence[Cursor]) -> None:
        positions = _positions_of(cursors)
        routed = {address: self._router.position(address) for address in positions}
        most_of_each = max(PAGE_ROWS // len(positions), _FEWEST_OF_EACH)
        page = await self._log.page(positions, most_of_each=most_of_each, is_replay=True)
        behind = [cursor for cursor in cursors if cursor.may_lack(page.gone_until)]
        gone_until = await self._log.gone_until(_positions_of(behind)) if behind else {}
        await self._catch_up.look_at_identity(page.identity)
        arrivals = _by_address(page.arrivals)
        for cursor in cursors:
            if cursor in self._asking:
                self._advance(cursor, page, arrivals, gone_until, routed)
            if cursor.is_ready:
                self._answer(cursor)
            elif cursor in self._asking:
                self._asking[cursor] = self._asking.pop(cursor)  # behind the others

    def _advance(
        self,
        cursor: Cursor,
        page: Page,
        arrivals: Mapping[str, Sequence[Arrival]],
        gone_until: Mapping[str, int],
        routed: Mapping[str, int],
    ) -> None:
        extent = self._catch_up.extent
        is_of_this_log = page.identity == extent.identity and cursor.meet(extent, last_id=page.last_id)
        if is_of_this_log and cursor.take(page, arrivals, gone_until, began_at=extent.began_at):
            self._attach(cursor, routed)

    def _next_cursors(self) -> list[Cursor]:
        cursors, addresses = list[Cursor](), set[str]()
        for cursor in islice(self._asking, _CURSORS_AT_ONCE):
            addresses.update(cursor.positions)
            if cursors and len(addresses) > _CURSORS_AT_ONCE:
                break
            cursors.append(cursor)
        return cursors

    def _attach(self, cursor: Cursor, routed: Mapping[str, int]) -> None:
        """Let the router deliver to a subscription, once that continues where the cursor stands.

        What was routed before the page was requested is in the page, or gone. What was routed since may not be: then
        another page is read. Both are checked in the same turn of the event loop that attaches the mailbox.
        """
        reached = {address: max(position, routed[address]) for address, position in cursor.positions.items()}
        if all(self._router.position(address) <= position for address, position in reached.items()):
            for address, position in reached.items():
                self._router.add(address, cursor.key, cursor.mailbox, after=position)
            cursor.is_finished = True

    def _fail(self, cursor: Cursor, error: Exception) -> None:
        logger.error("a subscription could not read what it missed, and ends", exc_info=error)
        failure = explained(error, self._log.place)
        if not isinstance(failure, PgChannelsError):
            failure = LayerClosed("the subscription failed and has ended: subscribe again")
        failure.__cause__ = error
        cursor.mailbox.close(failure)
        self.forget(cursor)

    def _answer(self, cursor: Cursor) -> None:
        answered = self._asking.pop(cursor, None)
        if answered is not None and not answered.done():
            answered.set_result(None)


def _positions_of(cursors: Sequence[Cursor]) -> dict[str, int]:
    positions: dict[str, int] = {}
    for cursor in cursors:
        for address, position in cursor.positions.items():
            positions[address] = min(position, positions.get(address, position))
    return positions


def _by_address(arrivals: Sequence[Arrival]) -> dict[str, list[Arrival]]:
    found: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        found.setdefault(arrival.address, []).append(arrival)
    return found
