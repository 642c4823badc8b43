"""What was measured beside many processes, and what the documents say of it."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.model import Coefficients, Counts, Load, cost
from benchmarks.processes.measure import Observation
from benchmarks.processes.subscriptions import Subscriptions

SINGLES_PER_SECOND: Final = 100
_MODELLED: Final = (10, 50, 100, 200, 500, 1_000)
_MEANINGS: Final = {
    "second": "each second, whatever happens",
    "commit": "a commit that sends",
    "message": "a message",
    "beat": "a heartbeat",
    "wake": "a wake-up",
    "heard": "a notification to a process",
}


@dataclass(frozen=True, slots=True)
class Record:
    """What was measured, and the coefficients that follow from it."""

    server: str
    coefficients: Coefficients
    observations: Sequence[Observation]
    subscriptions: Subscriptions | None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what `write` has written."""
        values: dict[str, Any] = json.loads(path.read_text())
        observations = [Observation(**{**one, "counts": Counts(**one["counts"])}) for one in values["observations"]]
        subscriptions = values["subscriptions"] and Subscriptions(**values["subscriptions"])
        return cls(values["server"], Coefficients.of(values["coefficients"]), observations, subscriptions)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    def observed(self, kind: str, processes: int, *, is_bare: bool = False) -> list[Observation]:
        """All rounds of one kind of sending beside so many processes."""
        sought = kind, processes, is_bare
        return [one for one in self.observations if (one.kind, one.processes, one.is_bare) == sought]


def coefficient_rows(coefficients: Coefficients) -> list[str]:
    """The rows of the table of what each costs."""
    microseconds = {name: 1e6 * value for name, value in asdict(coefficients).items()}
    return [f"| {_MEANINGS[name]} | {value:,.0f} µs |" for name, value in microseconds.items()]


def measured_rows(record: Record) -> list[str]:
    """The rows of the table of what was measured."""
    places = sorted({(one.is_bare, one.processes) for one in record.observations})
    return [_measured_row(record, processes, is_bare=is_bare) for is_bare, processes in places]


def _measured_row(record: Record, processes: int, *, is_bare: bool) -> str:
    idle, single, saturated, lone = (
        record.observed(kind, processes, is_bare=is_bare) for kind in ("idle", "single", "saturated", "one by one")
    )
    predicted = [one.counts.cpu_seconds(record.coefficients) for one in single]
    cells = [
        f"{processes:,}{' bare sessions' if is_bare else ''}",
        _cores([one.cores for one in idle]),
        f"{statistics.median(one.wakes_seen for one in single):,.0f}",
        f"{_cores([one.cores for one in single])} ({_cores(predicted)})",
        f"{statistics.median(one.counts.messages for one in saturated):,.0f}",
        f"{statistics.median(1e3 * one.p50 for one in lone if one.p50 is not None):.1f} ms",
    ]
    return f"| {' | '.join(cells)} |"


def modelled_rows(coefficients: Coefficients) -> list[str]:
    """The rows of the table of what the model says."""
    return [_modelled_row(coefficients, processes) for processes in _MODELLED]


def _modelled_row(coefficients: Coefficients, processes: int) -> str:
    idle, singles = Load(processes=processes, messages=0), Load(processes=processes, messages=SINGLES_PER_SECOND)
    rare = Load(processes=processes, messages=0, heartbeat=30)
    batches = Load(processes=processes, messages=2_000, batch=20)
    later = Load(processes=processes, messages=SINGLES_PER_SECOND, is_targeted=True)
    costs = [cost(load, coefficients) for load in (idle, rare, singles, batches, later)]
    cells = [
        f"{processes:,}",
        f"{3 * processes:,} or {2 * processes:,}",
        f"{costs[2].wakes:,.0f}",
        *(f"{one.cores:.2f}" for one in costs),
    ]
    return f"| {' | '.join(cells)} |"


def _cores(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f}"
