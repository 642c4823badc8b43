"""The balance of one subscription or channel; the rules are those of `ledger`."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf

from pgchannels import Position
from tests.chaos.epochs import Epochs
from tests.chaos.gaps import Missing, cover, gaps_among
from tests.chaos.journal import Began, Key, Received, Record
from tests.chaos.ledger import Ledger
from tests.chaos.sends import Sends


def balance_stream(
    ledger: Ledger,
    sends: Sends,
    epochs: Epochs,
    receiver: str,
    records: Sequence[Record],
    *,
    is_finished: bool,
    also_missing: Iterable[Missing] = (),
) -> None:
    """Enter what one receiver got, did not get, and was told; `also_missing` is what its groups owe it."""
    missing = [*also_missing]
    for target in dict.fromkeys(record.target for record in records if isinstance(record, Began | Received)):
        stream = _Stream(sends, target, records)
        ledger.delivered += len(stream.received)
        stream.require_once_and_in_order(ledger, receiver)
        missing += stream.missing(is_finished=is_finished)
    coverage = cover(missing, gaps_among(records, epochs))
    ledger.lost += coverage.lost
    ledger.told_in_excess += coverage.told_in_excess
    ledger.unaccounted += [_described(entry, receiver, records) for entry in coverage.uncovered]


class _Stream:
    """What one receiver got from one target, by the places in its journal."""

    def __init__(self, sends: Sends, target: str, records: Sequence[Record]) -> None:
        self._sends = sends
        self._target = target
        self._beginning = next((r.position for r in records if isinstance(r, Began) and r.target == target), None)
        self._receipts = {
            place: record
            for place, record in enumerate(records)
            if isinstance(record, Received) and record.target == target
        }
        self.received = {receipt.key for receipt in self._receipts.values()}

    def require_once_and_in_order(self, ledger: Ledger, receiver: str) -> None:
        """Enter what came again, and what came behind something later."""
        seen: set[Key] = set()
        last_position: Position | None = None
        last_numbers: dict[str, int] = {}
        for receipt in self._receipts.values():
            key, position = receipt.key, self._sends.position_of(receipt)
            last_number = last_numbers.get(key.sender, -1)
            if key in seen:
                ledger.duplicated.append(f"{key} came to {receiver} again")
            elif position and last_position and position <= last_position:
                ledger.out_of_order.append(f"{key} at {position} came to {receiver} behind {last_position}")
            elif key.number < last_number and key not in self._sends.given_up:
                ledger.out_of_order.append(f"{key} at {position} came to {receiver} behind #{last_number}")
            seen.add(key)
            last_position = max(filter(None, (position, last_position)), default=None)
            last_numbers[key.sender] = max(key.number, last_number)

    def missing(self, *, is_finished: bool) -> Iterator[Missing]:
        """What was due and did not come."""
        places = sorted(
            (position, place)
            for place, receipt in self._receipts.items()
            if (position := self._sends.position_of(receipt))
        )
        positions = [position for position, _ in places]
        # In case they came in disorder: behind all that stand before it, before all that stand behind it.
        behind = [*accumulate((place for _, place in places), max, initial=-1.0)]
        before = [*accumulate((place for _, place in reversed(places)), min, initial=inf)][::-1]
        last_of_all = self._sends.end_of(self._target) if is_finished else None
        end = max(filter(None, (*positions[-1:], last_of_all)), default=None)
        if self._beginning is None or end is None:
            return
        for position, key in self._sends.between(self._target, self._beginning, end):
            if key not in self.received:
                index = bisect_left(positions, position)
                yield Missing(key, position, behind[index], before[index])


def _described(missing: Missing, receiver: str, records: Sequence[Record]) -> str:
    behind, before = (_key_at(place, records) for place in (missing.behind, missing.before))
    return f"{missing.key} at {missing.position} never came to {receiver}: between {behind} and {before}"


def _key_at(place: float, records: Sequence[Record]) -> str:
    record = records[int(place)] if 0 <= place < len(records) else None
    return str(record.key) if isinstance(record, Received) else "nothing"
