"""The balance of one work queue over all of its consumers; the rules are those of `ledger`."""

from collections.abc import Iterator, Sequence
from math import inf

from tests.chaos.epochs import Epoch, Epochs, epoch_of
from tests.chaos.gaps import Gap, Missing, cover
from tests.chaos.journal import Began, GapTold, Key, Received, Record, Took
from tests.chaos.ledger import CRASH, UNTOLD, Account, Ending, Ledger
from tests.chaos.sends import Sends


def balance_queue(ledger: Ledger, sends: Sends, epochs: Epochs, queue: str, accounts: Sequence[Account]) -> None:
    """Enter what all consumers of a queue got together, did not get, and were told."""
    consumers = consumers_of(queue, accounts)
    received = _received_once(ledger, consumers, queue)
    missing = [Missing(key, position) for position, key in sends.to(queue) if key not in received]
    coverage = cover(missing, gaps_of(consumers, queue, sends, epochs))
    may_be_held = sum(consumer.may_hold for consumer in consumers if consumer.ending is Ending.KILLED)
    ledger.delivered += len(received)
    ledger.lost += coverage.lost
    ledger.told_in_excess += coverage.told_in_excess
    ledger.with_a_killed_process += min(may_be_held, len(coverage.uncovered))
    ledger.unaccounted += [
        f"{entry.key} at {entry.position} never came to any consumer" for entry in coverage.uncovered[may_be_held:]
    ]


def consumers_of(queue: str, accounts: Sequence[Account]) -> list[Account]:
    """Those who took part in a queue."""
    return [account for account in accounts if any(_consumed(account.records, queue))]


def gaps_of(consumers: Sequence[Account], queue: str, sends: Sends, epochs: Epochs) -> list[Gap]:
    """What all consumers of a queue were told, and what nobody could be told."""
    gaps = [gap for consumer in consumers for gap in _gaps(consumer, queue, sends, epochs)]
    return [*gaps, _untold(consumers, queue, sends, epochs)]


def _received_once(ledger: Ledger, consumers: Sequence[Account], queue: str) -> dict[Key, str]:
    receivers: dict[Key, str] = {}
    for consumer in consumers:
        for record in _consumed(consumer.records, queue):
            if not isinstance(record, Received):
                continue
            if record.key in receivers:
                ledger.duplicated.append(f"{record.key} came to {receivers[record.key]} and to {consumer.process}")
            receivers[record.key] = consumer.process
    return receivers


def _gaps(consumer: Account, queue: str, sends: Sends, epochs: Epochs) -> Iterator[Gap]:
    for record in _consumed(consumer.records, queue):
        if isinstance(record, GapTold):
            ended = epochs.ended_by(record.at)
            known = {one for one in ended if _seen(consumer, queue, sends, one[0])[0] <= one[1]}
            yield Gap(0, record.reason, record.count, known if record.reason == CRASH else None)


def _untold(consumers: Sequence[Account], queue: str, sends: Sends, epochs: Epochs) -> Gap:
    """What nobody could be told: the ends of epochs that no consumer lived to see."""
    untold = epochs.ended_by(inf)
    for consumer in consumers:
        for server, number in [*untold]:
            first, last = _seen(consumer, queue, sends, server)
            if first <= number < last:
                untold.remove((server, number))
    return Gap(0, UNTOLD, None, untold)


def _seen(consumer: Account, queue: str, sends: Sends, server: str) -> tuple[int, int]:
    """The first and the last epoch of a server in which a consumer knew of a message; 0 if it knew of none."""
    known = (_epoch_of(record, sends) for record in _consumed(consumer.records, queue))
    numbers = [epoch[1] for epoch in known if epoch is not None and epoch[0] == server]
    return min(numbers, default=0), max(numbers, default=0)


def _epoch_of(record: Began | Received | Took | GapTold, sends: Sends) -> Epoch | None:
    match record:
        case Began(position=position) | Took(position=position):
            return epoch_of(position)
        case Received():
            known = sends.position_of(record)
            return None if known is None else epoch_of(known)
        case GapTold():
            return None


def _consumed(records: Sequence[Record], queue: str) -> Iterator[Began | Received | Took | GapTold]:
    """What a consumer wrote down about a queue; the receiver there bears the queue's name."""
    for record in records:
        if isinstance(record, Began | Received | Took | GapTold) and record.receiver == queue:
            yield record
