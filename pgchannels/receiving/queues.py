"""Work queues on this node: claims messages for those who wait, and no more than they can take."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from pgchannels.database.connections import Connections, driver_text
from pgchannels.database.retry import insist, repeat
from pgchannels.database.statements.queues import claim
from pgchannels.database.tables import Schema
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.losses import Losses
from pgchannels.receiving.mailbox import Item, Mailbox, WhenFull
from pgchannels.receiving.missed_gaps import MissedGaps
from pgchannels.receiving.router import Router

_MOST_AT_ONCE: Final = 100


class Queues:
    """The queues that somebody on this node receives from."""

    def __init__(
        self,
        connections: Connections,
        schema: Schema,
        router: Router,
        hosting: Hosting,
        losses: Losses,
        *,
        valid_until: Callable[[], float],
    ) -> None:
        self._connections = connections
        self._claim_text = driver_text(claim(schema))
        self._router = router
        self._hosting = hosting
        self._losses = losses
        self._valid_until = valid_until
        self._receivers: dict[str, int] = {}
        self._claimed: dict[str, Mailbox] = {}
        self._unresolved: dict[str, tuple[int, int]] = {}  # claims that were perhaps committed
        self._ready: set[str] = set()
        self._work = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._is_closed = False
        self._cleared_until = 0
        self._missed_gaps = MissedGaps()

    async def receive(self, address: str) -> Item:
        """Claim the next message, waiting for one. Cancelling leaves it to the next receiver."""
        with self._receiving(address) as claimed:
            # Hosting before claiming: what is sent after the claim found nothing wakes this node.
            if not self._hosting.hosts(address):
                await self._hosting.positions_of([address])
            self.wake(address)
            return await claimed.get()

    def wake(self, address: str) -> None:
        """Look whether there is something to claim."""
        self._ready.add(address)
        self._work.set()

    def wake_all(self) -> None:
        """Look in every queue that somebody waits for."""
        self._ready.update(self._receivers)
        self._work.set()

    async def run(self) -> None:
        """Claim whatever there is to claim, for ever."""
        await repeat(self._claim_ready, what_failed="could not claim from queues")

    def lose(self, gap: Gap) -> None:
        """Tell whoever receives that what was in the queues is lost."""
        self._missed_gaps.lose(gap)
        for mailbox in self._claimed.values():
            mailbox.lose(gap)

    def clear(self, *, until: int) -> None:
        """Forget what was claimed but not received, up to a message's id; also what a claim under way brings."""
        self._cleared_until = until
        for mailbox in self._claimed.values():
            mailbox.clear(until=until)

    def take_abandoned(self) -> list[Arrival]:
        """What was claimed for receivers that went away; nobody on this node waits for it now."""
        abandoned = [address for address in self._claimed if address not in self._receivers]
        arrivals = [arrival for address in abandoned for arrival in self._claimed[address].clear()]
        for address in abandoned:
            self._forget_if_idle(address)
        return arrivals

    async def close(self, error: Exception, *, timeout_seconds: float) -> list[Arrival]:
        """Claim no more, end every wait, and return what was claimed but not received.

        :raises PgChannelsError: the database did not tell the outcome of a claim in time.
        """
        self._is_closed = True
        try:
            async with self._claiming:  # a claim under way has taken its messages from the queue already
                for address in list(self._unresolved):
                    # Nobody claims again after this: a connection that is lost once more must not be the end of it.
                    await insist(
                        partial(self._claim, address),
                        seconds=timeout_seconds,
                        what_failed="could not learn what was claimed from a queue",
                    )
        finally:
            for mailbox in self._claimed.values():
                mailbox.close(error)
            self._receivers.clear()
        return self.take_abandoned()

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
        await self._work.wait()
        async with self._claiming:
            while self._ready:
                await self._claim_all(self._ready.pop())
        self._work.clear()

    async def _claim_all(self, address: str) -> None:
        try:
            while await self._claim(address):
                pass
        except BaseException:
            self.wake(address)
            raise

    async def _claim(self, address: str) -> bool:
        """Claim once; returns whether there may be more for those who wait."""
        if address not in self._unresolved:
            if not (wanted := self._wanted(address)):
                return False
            self._unresolved[address] = secrets.randbits(63), min(wanted, _MOST_AT_ONCE)
        claim_id, most = self._unresolved[address]
        rows = await self._connections.fetch(self._claim_text, claim_id, self._valid_until(), address, most)
        arrivals = [Arrival.from_row(row) for row in rows if row["id"] is not None]
        del self._unresolved[address]
        if rows and rows[0]["lost"]:
            self._claimed_from(address).lose(Gap(GapReason.EXPIRED, rows[0]["lost"]))
        for arrival in arrivals:
            if arrival.id > self._cleared_until:
                self._claimed_from(address).put(arrival)
        return bool(rows)

    def _wanted(self, address: str) -> int:
        # What cancelled receivers left behind is for the next ones: there may be more of it than they are.
        return 0 if self._is_closed else max(self._receivers.get(address, 0) - len(self._claimed.get(address, ())), 0)

    def _claimed_from(self, address: str) -> Mailbox:
        if address not in self._claimed:
            mailbox = self._claimed[address] = Mailbox(
                capacity=sys.maxsize, when_full=WhenFull.FAIL, on_lost=self._losses.at(address)
            )
            for gap in self._missed_gaps.come_back(address):
                mailbox.lose(gap)
        return self._claimed[address]
