"""Work queues on this node: claims messages for those who wait, and no more than they can take."""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pgchannels.database.connections import Connections, is_connection_failure
from pgchannels.database.statements.queues import claim
from pgchannels.database.tables import Schema
from pgchannels.delivery.arrival import Arrival
from pgchannels.delivery.backoff import Backoff
from pgchannels.delivery.hosting import Hosting
from pgchannels.delivery.mailbox import Mailbox, WhenFull
from pgchannels.delivery.router import Router

_MOST_AT_ONCE: Final = 100

logger = logging.getLogger("pgchannels")


class Queues:
    """The queues that somebody on this node receives from."""

    def __init__(self, connections: Connections, schema: Schema, router: Router, hosting: Hosting) -> None:
        self._connections = connections
        self._schema = schema
        self._router = router
        self._hosting = hosting
        self._receivers: dict[str, int] = {}
        self._claimed: dict[str, Mailbox] = {}
        self._ready: set[str] = set()
        self._work = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._is_closed = False
        self._cleared_until = 0

    async def receive(self, address: str) -> Arrival:
        """Claim the next message, waiting for one. Cancelling leaves it to the next receiver."""
        with self._receiving(address) as claimed:
            # Hosting before claiming: what is sent after the claim found nothing wakes this node.
            await self._hosting.ensure(address)
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
        backoff = Backoff()
        while True:
            await self._work.wait()
            self._work.clear()
            ready, self._ready = self._ready, set()
            try:
                async with self._claiming:
                    await self._claim(ready)
            except Exception as error:
                if not is_connection_failure(error):
                    raise
                logger.warning("could not claim from queues, will try again: %r", error)
                self._ready |= ready
                self._work.set()
                await backoff.pause()
            else:
                backoff.reset()

    def clear(self, *, until: int) -> None:
        """Forget what was claimed but not received, up to a message's id; also what a claim under way brings."""
        self._cleared_until = until
        for mailbox in self._claimed.values():
            mailbox.clear(until=until)

    async def close(self, error: Exception) -> list[Arrival]:
        """Claim no more, end every wait, and return what was claimed but not received."""
        self._is_closed = True
        async with self._claiming:  # a claim under way has taken its messages from the queue already
            mailboxes = list(self._claimed.values())
        unreceived = [arrival for mailbox in mailboxes for arrival in mailbox.clear()]
        for mailbox in mailboxes:
            mailbox.close(error)
        return unreceived

    @contextmanager
    def _receiving(self, address: str) -> Iterator[Mailbox]:
        self._receivers[address] = self._receivers.get(address, 0) + 1
        self._router.add(address, self, _ignore)
        try:
            yield self._claimed_from(address)
        finally:
            self._receivers[address] -= 1
            if not self._receivers[address]:
                self._forget(address)

    def _forget(self, address: str) -> None:
        del self._receivers[address]
        self._router.remove(address, self)
        if not self._claimed_from(address):
            del self._claimed[address]

    async def _claim(self, addresses: set[str]) -> None:
        for address in addresses:
            while wanted := self._wanted(address):
                rows = await self._connections.run(claim(self._schema, address, limit=min(wanted, _MOST_AT_ONCE)))
                for row in sorted(rows):
                    if row.id > self._cleared_until:
                        self._claimed_from(address).put(Arrival.from_row(row))
                if not rows:
                    break

    def _wanted(self, address: str) -> int:
        # What cancelled receivers left behind is for the next ones: there may be more of it than they are.
        return 0 if self._is_closed else max(self._receivers.get(address, 0) - len(self._claimed.get(address, ())), 0)

    def _claimed_from(self, address: str) -> Mailbox:
        if address not in self._claimed:
            self._claimed[address] = Mailbox(capacity=sys.maxsize, when_full=WhenFull.FAIL)
        return self._claimed[address]


def _ignore(_: Arrival) -> None:
    """A queue has a route to be hosted; its messages are claimed, not delivered."""
