"""Which missing messages are covered by the gaps that a receiver was told; the rules are those of `ledger`."""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from math import inf

from pgchannels import Position
from tests.chaos.epochs import Epoch, Epochs, epoch_of
from tests.chaos.journal import GapTold, Key, Record
from tests.chaos.ledger import CRASH


@dataclass(frozen=True, slots=True)
class Missing:
    """A message that did not come, and the places in the receiver's journal between which it should have."""

    key: Key
    position: Position
    behind: float = -1
    before: float = inf


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap at its place in the receiver's journal, about messages of these epochs, or of any."""

    place: float
    reason: str
    count: int | None
    epochs: Container[Epoch] | None

    def may_cover(self, missing: Missing) -> bool:
        """Whether the message may be one of those that this gap tells of."""
        is_between = missing.behind < self.place < missing.before
        return is_between and (self.epochs is None or epoch_of(missing.position) in self.epochs)


@dataclass(slots=True)
class Coverage:
    """The outcome: how many messages the gaps of each reason cover, and what is left on either side."""

    lost: Counter[str]
    told_in_excess: int
    uncovered: list[Missing]


def gaps_among(records: Sequence[Record], epochs: Epochs) -> list[Gap]:
    """The gaps that a receiver was told, in their order."""
    return [
        Gap(place, record.reason, record.count, epochs.ended_by(record.at) if record.reason == CRASH else None)
        for place, record in enumerate(records)
        if isinstance(record, GapTold)
    ]


def cover(missing: Iterable[Missing], gaps: Sequence[Gap]) -> Coverage:
    """Match gaps with missing messages so that as few as possible stay uncovered."""
    coverage = Coverage(Counter(), 0, list(missing))
    countless = [gap for gap in gaps if gap.count is None]
    for gap in gaps:
        if gap.count is not None:
            covered = _most_urgent(coverage.uncovered, gap, countless)[: gap.count]
            coverage.told_in_excess += gap.count - len(covered)
            _take(coverage, gap, covered)
    for gap in countless:
        _take(coverage, gap, [entry for entry in coverage.uncovered if gap.may_cover(entry)])
    return coverage


def _most_urgent(uncovered: Iterable[Missing], gap: Gap, countless: Sequence[Gap]) -> list[Missing]:
    """What the gap may cover: first what no gap without a count will, and of that first what few later gaps can."""
    return sorted(
        (entry for entry in uncovered if gap.may_cover(entry)),
        key=lambda entry: (any(other.may_cover(entry) for other in countless), entry.before),
    )


def _take(coverage: Coverage, gap: Gap, covered: list[Missing]) -> None:
    coverage.lost[gap.reason] += len(covered)
    taken = set(covered)
    coverage.uncovered = [entry for entry in coverage.uncovered if entry not in taken]
