"""Work queues on this node: claims messages for waiting receivers, and no more than they can take."""

import asyncio
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from pgchannels.database.chore import Chore
from pgchannels.database.connections import Connections
from pgchannels.database.retry import insist
from pgchannels.database.statements.queues import wake_another
from pgchannels.errors import PgChannelsError
from pgchannels.messages import Gap, GapReason
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.hosting import Hosting
from pgchannels.receiving.line import Turn
from pgchannels.receiving.losses import Losses
from pgchannels.receiving.mailbox import Item, Mailbox, WhenFull
from pgchannels.receiving.missed_gaps import MissedGaps
from pgchannels.receiving.router import Router
from pgchannels.receiving.taking import Answer, Memory, Taker, Terms
from pgchannels.receiving.unfinished import Unfinished
from pgchannels.receiving.work import Taken, Works

logger: logging.Logger = logging.getLogger("pgchannels")


class Resender(Memory, Protocol):
    """Puts messages back into the queues that they were claimed from."""

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
        node_address: str,
        *,
        is_polled: bool,
    ) -> None:
        self.works: Works = Works(connections)
        self._connections = connections
        self._router = router
        self._hosting = hosting
        self._losses = losses
        self._sender = sender
        self._taker = Taker(connections, sender, self.works, node_address, is_polled)
        self._receivers: dict[str, dict[Terms, int]] = {}
        self._claimed: dict[Terms, Mailbox] = {}
        self._left: list[Arrival] = []  # claimed messages of a closed layer
        self._ready: set[str] = set()
        self._told: set[str] = set()  # queues of which the database has told this node, and perhaps nobody else
        self._claims = Chore(self._claim_ready, what_failed="could not claim from queues")
        self._returns = Chore(self.give_back, what_failed="could not give claimed messages back")
        self._work_returns = Chore(self.works.give_back, what_failed="could not give back work that failed")
        self._claiming = asyncio.Lock()
        self._giving_back = asyncio.Lock()
        self._is_closed = False
        self._cleared_until = 0
        self._missed_gaps = MissedGaps()
        self._unfinished = Unfinished(connections, self.works, node_address, self._taker, self._claiming)
        self.messages_claimed: int = 0

    async def receive(self, terms: Terms) -> Item:
        """Wait for the next message and claim it. Cancelling leaves it to the next receiver.

        With `attempts` in the terms, `finish` or `fail` must follow.
        """
        with self._receiving(terms) as claimed:
            await self._host(terms.address)
            return await claimed.get()

    @contextmanager
    def turn(self, terms: Terms) -> Iterator[Turn[Item]]:
        """As `receive`, for a task that waits elsewhere, too: it does not wait for the database."""
        with self._receiving(terms) as claimed, claimed.turn() as turn:
            hosting = asyncio.ensure_future(self._host(terms.address))
            hosting.add_done_callback(lambda _: turn.line.wake(len(turn.line.places)))
            try:
                yield turn.unless(lambda: _error_of(hosting))
            finally:
                hosting.add_done_callback(_error_of)  # which nobody is told any more
                hosting.cancel()
                if terms.visible_seconds is not None:  # the time of what is left here runs
                    self._returns.ask()

    def finish(self, taken: Taken) -> None:
        """Acknowledge a message soon: the work on it is done."""
        self.works.finish(taken)
        self.wake(taken.address)

    def fail(self, taken: Taken, *, is_counted: bool = True) -> None:
        """Give a message back soon: the work on it has failed."""
        self.works.return_(taken, has_failed=is_counted)
        self._work_returns.ask()

    def wake(self, address: str) -> None:
        """Check whether there is something to claim."""
        self._ready.add(address)
        self._claims.ask()

    def tell(self, address: str) -> None:
        """Check whether there is something to claim: the database says so, and perhaps to nobody else."""
        self._told.add(address)
        self.wake(address)

    def wake_all(self) -> None:
        """Check every queue that somebody waits for."""
        self._ready.update(self._receivers)
        self._claims.ask()

    async def run(self) -> None:
        """Claim what there is to claim, and give back what nobody waits for any more, forever."""
        async with asyncio.TaskGroup() as chores:
            for chore in (self._claims, self._returns, self._work_returns, self._unfinished.chore):
                chores.create_task(chore.run())

    def give_back_soon(self) -> None:
        """Start to give back what was claimed for receivers or workers that went away; return at once."""
        self._returns.ask()
        self._unfinished.look_at({*self._receivers, *self.works.queues})

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
            self.works.return_all()

    async def end_work(self, *, timeout_seconds: float) -> None:
        """Tell the database how the work of a closed layer has ended; what it does not learn is given back later."""
        limit = asyncio.timeout(timeout_seconds)  # ends this where the loop does not run any more
        try:
            async with limit:
                await self.works.give_back()
                while waiting := [*self._taker.queues_untold(), *self.works.queues_with_done()]:
                    await self._taker.take(Terms(waiting[0]), 0)
        except Exception as failure:
            logger.warning(
                "the layer closed, and could not tell the database which work is done: it is given to others when the"
                " lease ends: %s",
                _reason(failure),
            )

    async def wake_others(self) -> None:
        """Wake another node for each queue whose next message this one was to take; it is gone."""
        for address, token in self._taker.tokens.items():
            if token:
                await self._connections.ask(wake_another, address)

    @contextmanager
    def _receiving(self, terms: Terms) -> Iterator[Mailbox]:
        receivers = self._receivers.setdefault(terms.address, {})
        receivers[terms] = receivers.get(terms, 0) + 1
        self._router.reserve(terms.address, self)  # so that it is hosted; its messages are claimed
        try:
            yield self._claimed_from(terms)
        finally:
            self._stop_receiving(terms)

    async def _host(self, address: str) -> None:
        # Host before claiming: if the claim finds nothing, whatever is sent afterwards wakes this node.
        if not self._hosting.hosts(address):
            await self._hosting.positions_of([address], is_patient=True)
        self.wake(address)

    def _stop_receiving(self, terms: Terms) -> None:
        if self._is_closed:
            return
        receivers = self._receivers[terms.address]
        receivers[terms] -= 1
        if not receivers[terms]:
            del receivers[terms]
            self._forget_if_idle(terms)
        if not receivers:
            del self._receivers[terms.address]
            self._router.remove(terms.address, self)

    def _forget_if_idle(self, terms: Terms) -> None:
        if self._claimed_from(terms).is_idle:
            del self._claimed[terms]
            self._missed_gaps.leave(terms.name)

    async def _claim_ready(self) -> None:
        async with self._claiming:
            while self._ready:
                await self._claim_all(self._ready.pop())

    async def _claim_all(self, address: str) -> None:
        is_told = address in self._told
        self._told.discard(address)
        try:
            for terms in self._terms_of(address):
                while await self._claim(terms):
                    is_told = False  # at the end, it leaves a token, or nobody waits here: who does next looks again
            if is_told and not self._is_closed and not any(map(self._wanted, self._receivers.get(address, ()))):
                await self._connections.ask(wake_another, address)
        except BaseException:
            if is_told:
                self._told.add(address)
            self.wake(address)
            raise

    def _terms_of(self, address: str) -> list[Terms]:
        unresolved = (terms for terms in self._taker.unresolved if terms.address == address)
        return list(dict.fromkeys([*unresolved, *self._receivers.get(address, ()), Terms(address)]))

    async def _claim(self, terms: Terms) -> bool:
        """Claim once; return whether there may be more for waiting receivers."""
        wanted = self._wanted(terms)
        if terms in self._taker.unresolved or wanted or self.works.are_done(terms.address):
            answer = await self._taker.take(terms, wanted)
            self._settle(terms, answer)
            return answer.may_be_more
        return False

    def _settle(self, terms: Terms, answer: Answer) -> None:
        if answer.lost != 0:
            self._claimed_from(terms).lose(Gap(GapReason.EXPIRED, answer.lost))
        if terms.attempts is not None:
            for taken in answer.taken:
                self.works.begin(taken)
            if answer.taken and terms.visible_seconds is not None:
                self._unfinished.look_within(terms.address, terms.visible_seconds)
                if not self._receivers.get(terms.address, {}).get(terms):
                    self._returns.ask()
        self._put(terms, answer.taken)

    def _put(self, terms: Terms, arrivals: Sequence[Arrival]) -> None:
        self.messages_claimed += len(arrivals)
        for arrival in arrivals:
            if arrival.id > self._cleared_until:
                self._claimed_from(terms).put(arrival)

    def _take_abandoned(self) -> list[Arrival]:
        abandoned = [terms for terms in self._claimed if not self._receivers.get(terms.address, {}).get(terms)]
        arrivals, self._left = self._left, []
        for terms in abandoned:
            arrivals += self._claimed[terms].clear()
            self._forget_if_idle(terms)
        for taken in [taken for taken in arrivals if isinstance(taken, Taken) and self.works.has(taken)]:
            arrivals.remove(taken)
            self.fail(taken, is_counted=False)
        return arrivals

    async def _resolve(self, timeout_seconds: float) -> None:
        try:
            # Wait for giving back and claiming under way: their messages have left the queue already.
            async with asyncio.timeout(timeout_seconds), self._giving_back, self._claiming:
                for terms in list(self._taker.unresolved):
                    # Nobody claims again after this, so it must survive one more lost connection.
                    await insist(
                        partial(self._claim, terms),
                        place=self._connections.place,
                        seconds=timeout_seconds,
                        what_failed="could not learn what was claimed from a queue",
                    )
        except (PgChannelsError, TimeoutError) as failure:
            for terms, claim in self._taker.unresolved.items():
                if terms.attempts is not None or not claim.most:
                    continue  # what it took is given back when the lease ends, or it was to take nothing
                self._losses.count(Gap(GapReason.EXPIRED, None))
                logger.error(
                    "%s: the layer closes without an answer to its last claim: up to %d messages may be lost."
                    " Close it while the database can be reached, or send again what was not done: %s",
                    terms.address,
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
        claimed = self._claimed_from(Terms(address))
        logger.warning("%s: could not give %d claimed messages back: %s", address, len(failures), _reason(failure))
        if unknown:
            claimed.lose(Gap(GapReason.EXPIRED, None))
        self._put(Terms(address), [*unsent, *claimed.clear()])

    def _wanted(self, terms: Terms) -> int:
        # Messages that cancelled receivers left behind go to the next ones, and may outnumber them.
        receivers = self._receivers.get(terms.address, {}).get(terms, 0)
        return 0 if self._is_closed else max(receivers - len(self._claimed.get(terms, ())), 0)

    def _claimed_from(self, terms: Terms) -> Mailbox:
        if terms not in self._claimed:
            mailbox = self._claimed[terms] = Mailbox(
                capacity=sys.maxsize, when_full=WhenFull.FAIL, on_lost=self._losses.at(terms.address)
            )
            for gap in self._missed_gaps.come_back(terms.name):
                mailbox.lose(gap)
        return self._claimed[terms]


def _error_of(task: "asyncio.Task[None]") -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def _reason(failure: BaseException) -> str:
    # Only its first line: the database's details show the row, with the payload.
    return (str(failure) or type(failure).__name__).partition("\n")[0]
