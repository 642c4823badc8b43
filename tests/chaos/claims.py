"""The balance of one work queue whose messages are acknowledged; the rules are those of `ledger`."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from pgchannels import Position
from tests.chaos.epochs import Epochs
from tests.chaos.gaps import Missing, cover
from tests.chaos.journal import GapTold, Key, Took, Worked
from tests.chaos.ledger import CRASH, UNTOLD, Account, Ending, Ledger
from tests.chaos.queues import consumers_of, gaps_of
from tests.chaos.sends import Sends


@dataclass(frozen=True, slots=True)
class _Take:
    """One attempt at a job: by whom, and whether that is done; None if nobody lived to say."""

    account: Account
    took: Took
    is_done: bool | None

    @property
    def process(self) -> str:
        return self.account.process

    @property
    def attempts(self) -> int:
        return self.took.attempts

    def may_come_again_as(self, later: "_Take") -> bool:
        """Whether the job may have been given back in between."""
        has_ended = self.account.ending is not Ending.FINISHED and self.account.records[-1].at <= later.took.at
        hidden = self.took.hidden_seconds
        return self.is_done is False or has_ended or (hidden is not None and later.took.at - self.took.asked >= hidden)


def balance_claims(ledger: Ledger, sends: Sends, epochs: Epochs, queue: str, accounts: Sequence[Account]) -> None:
    """Enter which jobs of a queue were done, by whom, how often, and in which order."""
    workers = consumers_of(queue, accounts)
    takes = [take for worker in workers for take in _takes(worker, queue)]
    done = {take.took.key for take in takes if take.is_done}
    gaps = [gap for gap in gaps_of(workers, queue, sends, epochs) if gap.reason in {CRASH, UNTOLD}]
    coverage = cover(_missing(sends, queue, takes, done), gaps)
    ledger.taken += len(takes)
    ledger.done += len(done)
    ledger.dead += len({take.took.key for take in takes if take.took.is_dead})
    ledger.delivered += len(done)
    ledger.lost += coverage.lost
    ledger.told_in_excess += coverage.told_in_excess
    ledger.unaccounted += [f"{entry.key} at {entry.position} was never done" for entry in coverage.uncovered]
    ledger.unaccounted += _told_of_expiry(workers, queue)
    _require_attempts(ledger, takes, may_have_taken=sum(worker.ending is not Ending.FINISHED for worker in workers))
    ledger.out_of_order += [*_within_workers(workers, queue), *_among_workers(takes)]


def _takes(worker: Account, queue: str) -> Iterator[_Take]:
    ends = {(end.key, end.attempts): end.is_done for end in worker.records if isinstance(end, Worked)}
    for took in _took(worker, queue):
        yield _Take(worker, took, ends.get((took.key, took.attempts)))


def _took(worker: Account, queue: str) -> list[Took]:
    return [took for took in worker.records if isinstance(took, Took) and took.receiver == queue]


def _missing(sends: Sends, queue: str, takes: Sequence[_Take], done: set[Key]) -> list[Missing]:
    """What is known to be in the queue, also by those who tried it, and was not done."""
    known: dict[Key, Position] = {take.took.key: take.took.position for take in takes}
    known |= {key: position for position, key in sends.to(queue)}
    return [Missing(key, position) for key, position in known.items() if key not in done]


def _told_of_expiry(workers: Sequence[Account], queue: str) -> Iterator[str]:
    for worker in workers:
        for told in worker.records:
            if isinstance(told, GapTold) and told.receiver == queue and told.reason != CRASH and told.count:
                yield f"{worker.process}/{queue} was told that {told.count} jobs were lost: {told.reason}"


def _require_attempts(ledger: Ledger, takes: Sequence[_Take], *, may_have_taken: int) -> None:
    by_job: defaultdict[Key, list[_Take]] = defaultdict(list)
    for take in takes:
        by_job[take.took.key].append(take)
    for key, attempts in by_job.items():
        attempts.sort(key=lambda take: (take.attempts, take.took.at))
        _require_reasons(ledger, key, attempts)
        unknown = attempts[-1].attempts - len(attempts)
        if unknown > may_have_taken:
            ledger.unaccounted.append(f"{key} has {attempts[-1].attempts} attempts, {unknown} of which nobody made")


def _require_reasons(ledger: Ledger, key: Key, attempts: Sequence[_Take]) -> None:
    for earlier, later in pairwise(attempts):
        if earlier.attempts == later.attempts:
            ledger.duplicated.append(f"{key} came to {earlier.process} and {later.process} at attempt {later.attempts}")
        elif later.took.at < earlier.took.at and earlier.took.hidden_seconds is None:
            ledger.out_of_order.append(f"{key} came to {earlier.process} with {earlier.attempts} attempts after more")
        elif not earlier.may_come_again_as(later):
            ledger.duplicated.append(
                f"{key} came to {later.process} although {earlier.process} had it, and did not fail"
            )


def _within_workers(workers: Sequence[Account], queue: str) -> Iterator[str]:
    for worker in workers:
        latest: dict[tuple[float | None, bool], Took] = {}  # these are claimed apart
        for took in _took(worker, queue):
            way = took.hidden_seconds, took.is_dead
            before = latest.get(way)
            if before is not None and took.position < before.position:
                yield f"{took.key} at {took.position} came to {worker.process} behind {before.position}"
            latest[way] = took


def _among_workers(takes: Sequence[_Take]) -> Iterator[str]:
    """Those that were asked for when a later one had been taken. Who has no hidden jobs may get what others left."""
    taken_at = inf
    for take in sorted(
        (take for take in takes if not take.took.is_dead), key=lambda take: take.took.position, reverse=True
    ):
        if take.took.hidden_seconds is not None and taken_at < take.took.asked:
            yield f"{take.took.key} at {take.took.position} came to {take.process} when a later one had been taken"
        taken_at = min(taken_at, take.took.at)
