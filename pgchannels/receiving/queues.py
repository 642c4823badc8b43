"""Work queues on this node: claims messages for waiting receivers, and no more than they can take."""

import asyncio
import logging
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import asyncpg

from pgchannels.database.chore import Chore
from pgchannels.database.connections import Connections
from pgchannels.database.retry import insist
from pgchannels.database.statements.queues import claim as claim_messages
from pgchannels.errors import PgChannelsError
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.losses import Losses
from pgchannels.receiving.mailbox import Item, Mailbox, WhenFull
from pgchannels.receiving.missed_gaps import MissedGaps
from pgchannels.receiving.router import Router

_MOST_AT_ONCE: Final = 100

logger: logging.Logger = logging.getLogger("pgchannels")


@dataclass(frozen=True, slots=True)
class _Claim:
    """A claim that may have been committed; it is repeated with its number until answered.

    The log remembers the number at least until `remembered_until`, by the database's clock. A later repetition that is
    not remembered takes nothing: it would take other messages, and those of the first call would be lost unnoticed.
    """

    number: int
    most: int
    remembered_until: float


class Resender(Protocol):
    """Puts messages back into the queues that they were claimed from."""

    retention_seconds: float

    def valid_until(self) -> float:
        """Return until when, by the database's clock, a call made now may take effect."""

    async def resend(self, address: str, channel: str | None, envelope: bytes) -> object:
        """Put a message at the end of the queue that it was claimed from."""


class Queues:
    """The queues that somebody on this node receives from."""

    def __init__(
        self,
        connections: Connections,
        router: Router,
        hosting: Hosting,
        losses: Losses,
        sender: Resender,
    ) -> None:
        self._connections = connections
        self._router = router
        self._hosting = hosting
        self._losses = losses
        self._sender = sender
        self._receivers: dict[str, int] = {}
        self._claimed: dict[str, Mailbox] = {}
        self._left: list[Arrival] = []  # claimed messages of a closed layer
        self._unresolved: dict[str, _Claim] = {}
        self._ready: set[str] = set()
        self._claims = Chore(self._claim_ready, what_failed="could not claim from queues")
        self._returns = Chore(self.give_back, what_failed="could not give claimed messages back")
        self._claiming = asyncio.Lock()
        self._giving_back = asyncio.Lock()
        self._is_closed = False
        self._cleared_until = 0
        self._missed_gaps = MissedGaps()
        self.messages_claimed: int = 0

    async def receive(self, address: str) -> Item:
        """Wait for the next message and claim it. Cancelling leaves it to the next receiver."""
        with self._receiving(address) as claimed:
            # Host before claiming: if the claim finds nothing, whatever is sent afterwards wakes this node.
            if not self._hosting.hosts(address):
                await self._hosting.positions_of([address], is_patient=True)
            self.wake(address)
            return await claimed.get()

    def wake(self, address: str) -> None:
        """Check whether there is something to claim."""
        self._ready.add(address)
        self._claims.ask()

    def wake_all(self) -> None:
        """Check every queue that somebody waits for."""
        self._ready.update(self._receivers)
        self._claims.ask()

    async def run(self) -> None:
        """Claim what there is to claim, and give back what nobody waits for any more, forever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._claims.run())
            both.create_task(self._returns.run())

    def give_back_soon(self) -> None:
        """Start to give back what was claimed for receivers that went away; return at once."""
        self._returns.ask()

    def lose(self, gap: Gap) -> None:
        """Report to all receivers that the contents of the queues are lost."""
        self._missed_gaps.lose(gap)
        for mailbox in self._claimed.values():
            mailbox.lose(gap)

    def clear(self, *, until: int) -> None:
        """Drop what was claimed but not received, up to a message's id; also what a claim under way returns."""
        self._cleared_until = until
        for mailbox in self._claimed.values():
            mailbox.clear(until=until)

    async def give_back(self) -> None:
        """Put messages back that were claimed for receivers that went away, at the end of their queues.

        What cannot be sent stays here for the next receiver or the next call; after `close` it is counted and logged.
        """
        async with self._giving_back:
            await self._give_back(self._take_abandoned())

    async def close(self, error: Exception, *, timeout_seconds: float) -> None:
        """Claim no more and end every wait; `give_back` then gives back what was claimed and not received."""
        self._is_closed = True
        try:
            await self._resolve(timeout_seconds)
        finally:
            for mailbox in self._claimed.values():
                mailbox.close(error)
            self._receivers.clear()
            self._left = self._take_abandoned()  # before the waiting receivers wake up

    @contextmanager
    def _receiving(self, address: str) -> Iterator[Mailbox]:
        self._receivers[address] = self._receivers.get(address, 0) + 1
        self._router.reserve(address, self)  # so that it is hosted; its messages are claimed
        try:
            yield self._claimed_from(address)
        finally:
            self._stop_receiving(address)

    def _stop_receiving(self, address: str) -> None:
        if self._is_closed:
            return
        self._receivers[address] -= 1
        if not self._receivers[address]:
            del self._receivers[address]
            self._router.remove(address, self)
            self._forget_if_idle(address)

    def _forget_if_idle(self, address: str) -> None:
        if self._claimed_from(address).is_idle:
            del self._claimed[address]
            self._missed_gaps.leave(address)

    async def _claim_ready(self) -> None:
        async with self._claiming:
            while self._ready:
                await self._claim_all(self._ready.pop())

    async def _claim_all(self, address: str) -> None:
        try:
            while await self._claim(address):
                pass
        except BaseException:
            self.wake(address)
            raise

    async def _claim(self, address: str) -> bool:
        """Claim once; return whether there may be more for waiting receivers."""
        if address not in self._unresolved:
            if not (wanted := self._wanted(address)):
                return False
            self._unresolved[address] = self._new_claim(wanted)
        rows = await self._answer(address, self._unresolved[address])
        if rows is None:
            del self._unresolved[address]
            self._claimed_from(address).lose(Gap(GapReason.EXPIRED, None))
            return True
        arrivals = [Arrival.from_row(row) for row in rows if row["id"] is not None]
        del self._unresolved[address]
        if rows and rows[0]["lost"]:
            self._claimed_from(address).lose(Gap(GapReason.EXPIRED, rows[0]["lost"]))
        self._put(address, arrivals)
        return bool(rows)

    def _new_claim(self, wanted: int) -> _Claim:
        remembered_until = self._connections.database_time() + self._sender.retention_seconds
        return _Claim(secrets.randbits(63), min(wanted, _MOST_AT_ONCE), remembered_until)

    async def _answer(self, address: str, claim: _Claim) -> "Sequence[asyncpg.Record] | None":
        """Return what the claim took; None if it is too late to know."""
        valid_until = min(self._sender.valid_until(), claim.remembered_until)
        try:
            return await self._connections.fetch(claim_messages, claim.number, valid_until, address, claim.most)
        except asyncpg.QueryCanceledError:
            if self._connections.database_time() < claim.remembered_until:
                raise
            return None

    def _put(self, address: str, arrivals: Sequence[Arrival]) -> None:
        self.messages_claimed += len(arrivals)
        for arrival in arrivals:
            if arrival.id > self._cleared_until:
                self._claimed_from(address).put(arrival)

    def _take_abandoned(self) -> list[Arrival]:
        abandoned = [address for address in self._claimed if address not in self._receivers]
        arrivals, self._left = self._left, []
        for address in abandoned:
            arrivals += self._claimed[address].clear()
            self._forget_if_idle(address)
        return arrivals

    async def _resolve(self, timeout_seconds: float) -> None:
        try:
            # Wait for giving back and claiming under way: their messages have left the queue already.
            async with asyncio.timeout(timeout_seconds), self._giving_back, self._claiming:
                for address in list(self._unresolved):
                    # Nobody claims again after this, so it must survive one more lost connection.
                    await insist(
                        partial(self._claim, address),
                        place=self._connections.place,
                        seconds=timeout_seconds,
                        what_failed="could not learn what was claimed from a queue",
                    )
        except (PgChannelsError, TimeoutError) as failure:
            for address, claim in self._unresolved.items():
                self._losses.count(Gap(GapReason.EXPIRED, None))
                logger.error(
                    "%s: the layer closes without an answer to its last claim: up to %d messages may be lost."
                    " Close it while the database can be reached, or send again what was not done: %s",
                    address,
                    claim.most,
                    _reason(failure),
                )

    async def _give_back(self, arrivals: Sequence[Arrival]) -> None:
        outcomes: Sequence[BaseException | None] = [asyncio.CancelledError()] * len(arrivals)
        try:
            outcomes = await asyncio.gather(*map(self._resend, arrivals), return_exceptions=True)
        finally:
            failed: defaultdict[str, list[tuple[Arrival, BaseException]]] = defaultdict(list)
            for arrival, outcome in zip(arrivals, outcomes, strict=True):
                if outcome is not None:
                    failed[arrival.address].append((arrival, outcome))
            for address, failures in failed.items():
                self._keep(address, failures)

    async def _resend(self, arrival: Arrival) -> None:
        assert arrival.envelope is not None
        await self._sender.resend(arrival.address, arrival.channel, arrival.envelope)

    def _keep(self, address: str, failures: Sequence[tuple[Arrival, BaseException]]) -> None:
        # Messages that may be back in the queue do not stay here as well: nothing is received twice.
        unsent = [arrival for arrival, failure in failures if not getattr(failure, "may_have_been_sent", True)]
        unknown = len(failures) - len(unsent)
        _, failure = failures[0]
        if self._is_closed:
            self._losses.count(Gap(GapReason.EXPIRED, len(unsent)) if unsent else Gap(GapReason.EXPIRED, None))
            logger.error(
                "%s: the layer closed with %d claimed messages that it could not give back: %d are lost, %d may be."
                " Close it while the database can be reached, or send them again: %s",
                *(address, len(failures), len(unsent), unknown, _reason(failure)),
            )
            return
        claimed = self._claimed_from(address)
        logger.warning("%s: could not give %d claimed messages back: %s", address, len(failures), _reason(failure))
        if unknown:
            claimed.lose(Gap(GapReason.EXPIRED, None))
        self._put(address, [*unsent, *claimed.clear()])

    def _wanted(self, address: str) -> int:
        # Messages that cancelled receivers left behind go to the next ones, and may outnumber them.
        return 0 if self._is_closed else max(self._receivers.get(address, 0) - len(self._claimed.get(address, ())), 0)

    def _claimed_from(self, address: str) -> Mailbox:
        if address not in self._claimed:
            mailbox = self._claimed[address] = Mailbox(
                capacity=sys.maxsize, when_full=WhenFull.FAIL, on_lost=self._losses.at(address)
            )
            for gap in self._missed_gaps.come_back(address):
                mailbox.lose(gap)
        return self._claimed[address]


def _reason(failure: BaseException) -> str:
    # Only its first line: the database's details show the row, with the payload.
    return (str(failure) or type(failure).__name__).partition("\n")[0]
