"""Keeps arrivals in order, and reads from the log what notifications did not carry."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from pgchannels.database.extent import Extent
from pgchannels.database.retry import repeat
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.arrival import GREATEST_ID, Arrival
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.log import Log
from pgchannels.receiving.page_limit import PageLimit
from pgchannels.receiving.router import Router

_IDS_BEYOND: Final = 1 << 22  # how far past the last known id a message's id may be: some thousand batches
MOST_HELD: Final = 10_000  # arrivals during a reading; the log has them all, so more need not be kept


class CatchUp:
    """Routes arrivals at once, or reads the log: then it holds arrivals, and routes them with what it reads.

    Both are routed in the order of ids: messages that were sent one after another arrive in that order, whatever their
    addresses. The log is read for the address of a large message, for an address that another process has added a
    channel of this node to, and for all addresses whenever something may have been missed. A reading of some addresses
    ends at the greatest id heard: by then, everything sent earlier to other addresses has been heard, too.

    An arrival with an id far beyond the known ones waits until the log has been asked for its last id. A greater id is
    impossible: as a position, it would keep out every later message.

    A node that polls hears nothing: it reads all addresses whenever there may be something new.

    One task hosts and reads, in turns: an address is hosted before it is read, so nothing is missed in between.
    """

    def __init__(
        self,
        log: Log,
        router: Router,
        hosting: Hosting,
        *,
        work: asyncio.Event,
        on_impossible: Callable[[], None],
        is_polled: bool = False,
    ) -> None:
        self._is_polled = is_polled
        self._became_live = asyncio.Event()
        self.messages_read: int = 0
        self._on_impossible = on_impossible
        self._log = log
        self._router = router
        self._hosting = hosting
        self._held: deque[Arrival] = deque()
        self._to_read: set[str] = set()
        self._is_all_to_read = False
        self._has_doubtful = False  # among the held arrivals
        self._limit: PageLimit | None = None  # of the reading under way
        self.is_listening: bool = False  # on a connection, so the node is registered
        self._is_live = False
        self._heard_until = 0  # the greatest id heard or read
        self._work = work
        self._extent: Extent | None = None
        self._credible_until = 0  # a greater id may be one that the log never gave
        self._accounted_until = 0  # everything up to this id was routed, or reported as lost
        self._told_gone: dict[str, int] = {}  # up to which id each address was reported as lost, since then

    @property
    def is_live(self) -> bool:
        """Whether arrivals are routed at once: everything sent before has arrived."""
        return self._is_live

    @property
    def routed_until(self) -> int:
        """The id up to which everything was routed, whatever its address; 0 while the log is being read."""
        return self._accounted_until if self._is_live else 0

    def is_credible(self, message_id: int) -> bool:
        """Whether this log may have given an id; a greater one belongs to another log."""
        return message_id <= self._credible_until

    def arrive(self, arrival: Arrival) -> None:
        """Take a message from a notification, or a mark: everything sent before its id has been heard."""
        if arrival.id > self._credible_until:
            self._has_doubtful = True
            self._is_live = False
        elif arrival.id > self._heard_until:
            self._heard_until = arrival.id
        if not self._is_live:
            self._hold(arrival)
            self._work.set()
        elif not arrival.must_be_read:
            self._router.route(arrival)
        elif self._router.is_awaited(arrival):
            self._hold(arrival)
            self.read(arrival.address)

    def read(self, address: str) -> None:
        """Read the messages to an address after its position; hold arrivals meanwhile."""
        self._to_read.add(address)
        self._begin_reading()

    def read_all(self) -> None:
        """Read the messages to all addresses after their positions."""
        self._is_all_to_read = True
        self._begin_reading()

    async def caught_up(self) -> None:
        """Wait until everything that is to be read has been routed."""
        while not self._is_live:
            self._became_live.clear()
            await self._became_live.wait()

    def stop_listening(self) -> None:
        """Read everything once `begin_listening` is called: arrivals until then may follow missed messages."""
        self.is_listening = False
        self.read_all()

    def begin_listening(self) -> None:
        """Record that everything is heard from now on."""
        self.is_listening = True
        self._work.set()

    async def run(self) -> None:
        """Host and read whatever is due, forever."""
        await repeat(self._step_when_asked, what_failed="could not host addresses and read the log")

    async def settle(self) -> None:
        """Host and read until nothing is left to do."""
        while not self._is_live or self._hosting.is_behind:
            if not self.is_listening:
                raise ConnectionError("the listening connection was lost")
            await self._step()

    def note_heard(self, *, filled_until: int) -> None:
        """Record that everything sent until a moment was heard, and the last id of the slots that were full then."""
        if self._is_live:
            self._account_for(filled_until)

    async def look_at_identity(self, identity: int) -> None:
        """If the identity has changed, check whether the log is a different one."""
        if self._extent is None or identity != self._extent.identity:
            self.meet(await self._log.extent())

    def meet(self, extent: Extent) -> None:
        """Take the extent of the log. If it does not continue the known log, report a gap and start over."""
        known, self._extent = self._extent, extent
        self._credible_until = extent.last_id + _IDS_BEYOND
        if known is None:
            self._accounted_until = extent.filled_until
            return
        seen_until = self._router.greatest_position()
        if not extent.continues(known.identity, seen_until, heard_of=known.last_id):
            begin = extent.begin_after(known.identity, max(seen_until, known.last_id))
            self._accounted_until = self._heard_until = begin
            self._router.lose(Gap(GapReason.CRASH, None))
            self._router.begin_anew(begin, last_id=extent.last_id)
            self._hosting.forget()  # a restored table may have only part of what is hosted
            self.read_all()

    @property
    def extent(self) -> Extent:
        """The extent of the log, as last seen."""
        assert self._extent is not None
        return self._extent

    def _begin_reading(self) -> None:
        self._is_live = False
        self._limit = None  # it belongs to the previous reading
        self._work.set()

    def _hold(self, arrival: Arrival) -> None:
        if len(self._held) < MOST_HELD:
            self._held.append(arrival)
        else:
            self.read_all()

    async def _step_when_asked(self) -> None:
        await self._work.wait()
        await self._step()

    async def _step(self) -> None:
        if not self.is_listening:
            self._work.clear()  # the database may not know this node until it listens
        elif self._hosting.is_behind:
            await self._hosting.reconcile(self.look_at_identity)
        elif self._has_doubtful:
            await self._look_at_doubtful()
        elif self._is_all_to_read or self._is_heard(self._to_read):
            await self._read()
        elif self._to_read:
            self._work.clear()  # until the mark is heard
        else:
            self._route_held(until=GREATEST_ID)
            if not self._to_read:
                self._is_live = True
                self._became_live.set()
                self._work.clear()
            if self._hosting.is_behind:
                self._work.set()

    async def _look_at_doubtful(self) -> None:
        """Drop held arrivals with ids that the log never gave."""
        heard = len(self._held)
        self.meet(await self._log.extent())
        last_id, held = self.extent.last_id, list(self._held)
        possible = [arrival for arrival in held[:heard] if arrival.id <= last_id]
        self._held = deque(possible + held[heard:])
        self._heard_until = max([self._heard_until, *map(_id_of, possible)])
        self._has_doubtful = any(arrival.id > self._credible_until for arrival in held[heard:])
        for _ in range(len(held) - len(self._held)):
            self._on_impossible()

    def _is_heard(self, addresses: set[str]) -> bool:
        """Whether there are any, and everything sent before they were hosted has been heard."""
        if self._is_polled:
            return bool(addresses)
        return bool(addresses) and self._heard_until >= max(map(self._router.hosted_at, addresses))

    async def _read(self) -> None:
        is_all, some = self._is_all_to_read or self._is_polled, self._to_read
        self._is_all_to_read, self._to_read = False, set()
        is_complete = False
        try:
            is_complete = await self._read_page(None if is_all else some)
        finally:
            if not is_complete:
                self._is_all_to_read |= is_all
                self._to_read |= some

    async def _read_page(self, addresses: set[str] | None) -> bool:
        """Read and route the next page of some addresses or, with None, of all; return whether it was the last."""
        if addresses is None:
            self._held = deque()  # what was heard so far is in the log
        positions, known, heard = self._router.positions(addresses), self.extent, len(self._held)
        limit = self._limit or PageLimit(GREATEST_ID if addresses is None else self._heard_until)
        if not positions:
            return True
        page = await self._log.page(positions, up_to=limit.until)
        is_behind = addresses is None and page.gone_until > self._accounted_until
        gone_until = await self._log.gone_until(positions) if is_behind else {}
        await self.look_at_identity(page.identity)
        if not known.identity == page.identity == self.extent.identity:
            return False  # a page of one log, requested with positions of another
        if addresses is not None and self._is_all_to_read:
            return False  # it leaves out what was heard, which must be read now
        self._tell_lost(gone_until, positions)
        until = page.arrivals[-1].id if page.is_full else limit.until
        arrivals = page.arrivals if addresses is None else self._heard_of(page.arrivals)
        self._note_gone(heard, positions, until)
        # If more must be read now than when the page was requested, what was heard may follow missed messages.
        heard_meanwhile = () if self._is_all_to_read else self._held
        self._held = deque(sorted([*arrivals, *heard_meanwhile], key=_id_of))
        ids = [arrival.id for arrival in page.arrivals]
        self.messages_read += len(ids)
        self._heard_until = max([self._heard_until, *ids[-1:]])
        limit.note_page(ids, is_full=page.is_full, last_id=page.last_id)
        if limit.is_complete and addresses is None:
            self._account_for(page.filled_until)
        self._route_held(until=until)
        self._limit = None if limit.is_complete or self._to_read or self._is_all_to_read else limit
        return limit.is_complete

    def _heard_of(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Return those heard, or sent before their address was hosted: the rest of their batches was heard, too."""
        announced = {arrival.id for arrival in self._held if arrival.must_be_read}
        hosted_at = self._router.hosted_at
        return [one for one in arrivals if one.id in announced or one.id <= hosted_at(one.address)]

    def _tell_lost(self, gone_until: Mapping[str, int], positions: Mapping[str, int]) -> None:
        # Batches up to `filled_until` were committed when the last page was requested, since the log leaves a slot only
        # when all batches in it are committed. So what is accounted for was read, or reported, before it left the log.
        told = self._told_gone
        lost = {
            address: until
            for address, until in gone_until.items()
            if until > max(positions[address], self._accounted_until, told.get(address, 0))
        }
        if lost:
            told |= lost
            self._router.lose_until(Gap(GapReason.EXPIRED, None), lost)

    def _account_for(self, filled_until: int) -> None:
        self._accounted_until = max(self._accounted_until, filled_until)
        self._told_gone = {}

    def _note_gone(self, heard: int, positions: Mapping[str, int], until: int) -> None:
        """Mark what was heard before a page was requested as read: unless it is in the page, its row is gone."""
        for arrival in islice(self._held, heard):
            if arrival.address in positions and arrival.id <= until:
                arrival.is_read = True

    def _route_held(self, *, until: int) -> None:
        held = self._held
        # A command among them may require a reading first.
        while held and held[0].id <= until and not self._to_read and not self._has_doubtful:
            if held[0].must_be_read and self._router.is_awaited(held[0]):
                self._to_read = {arrival.address for arrival in held if arrival.must_be_read}
            else:
                self._router.route(held.popleft())


def _id_of(arrival: Arrival) -> int:
    return arrival.id
