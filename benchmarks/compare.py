"""Compares two runs, for judging a change: `python -m benchmarks.compare BEFORE.json AFTER.json`.

Figures of ours change with the machine, too. So each is also given beside the same figure of others that the change
cannot have touched, in the same run: a change is believed where it stands out of the spread of the rounds.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.contestants import ENTRIES
from benchmarks.record import Measured, Record
from benchmarks.units import formatted
from benchmarks.works import WORKS
from benchmarks.works.work import Figure

_OTHERS: Final = ("redis-pubsub", "redis-core", "broadcaster", "channels-nats")
_LEAST_CHANGE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """A figure in two runs. `factor` is after by before; `beside_others` the same, in units of what others did."""

    work: str
    contestant: str
    figure: Figure
    before: float
    after: float
    beside_others: float
    spread: float

    @property
    def verdict(self) -> str:
        """What to say of it."""
        change = self.beside_others - 1
        if abs(change) <= max(self.spread, _LEAST_CHANGE):
            return ""
        return "better" if (change > 0) == self.figure.more_is_better else "**worse**"


def main() -> int:
    """Print the comparison as a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    print("\n".join(table(Record.read(options.before), Record.read(options.after))))
    return 0


def table(before: Record, after: Record) -> Iterator[str]:
    """A line for each figure of ours that both runs have."""
    yield "| work | figure | before | after | factor | beside others | |"
    yield "|---|---|---|---|---|---|---|"
    for change in changes(before, after):
        unit = change.figure.unit
        yield (
            f"| {change.work} | {ENTRIES[change.contestant].title}: {change.figure.title}"
            f" | {formatted(change.before, unit)} | {formatted(change.after, unit)}"
            f" | {change.after / change.before:.2f} | {change.beside_others:.2f} ± {change.spread:.2f}"
            f" | {change.verdict} |"
        )


def changes(before: Record, after: Record) -> Iterator[Change]:
    """All figures of ours that both runs have."""
    for work in WORKS:
        for contestant in before.works.get(work.name, {}):
            if not contestant.startswith("pgchannels"):
                continue
            for name, figure in work.figures.items():
                one, two = _measured(before, work.name, contestant, name), _measured(after, work.name, contestant, name)
                if one is None or two is None:
                    continue
                first, second = one.median(name) or 0.0, two.median(name) or 0.0
                if first and second:
                    others = _change_of_others(before, after, work.name, name)
                    spread = one.spread(name) + two.spread(name)
                    yield Change(work.name, contestant, figure, first, second, second / first / others, spread)


def _measured(record: Record, work: str, contestant: str, figure: str) -> Measured | None:
    measured = record.works.get(work, {}).get(contestant)
    return measured if measured is not None and measured.values.get(figure) else None


def _change_of_others(before: Record, after: Record, work: str, figure: str) -> float:
    factors = []
    for other in _OTHERS:
        first, second = before.median(work, other, figure), after.median(work, other, figure)
        if first and second:
            factors.append(second / first)
    return statistics.median(factors) if factors else 1.0


if __name__ == "__main__":
    sys.exit(main())
