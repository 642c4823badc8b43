"""What a run has measured, as it is written to a file and read again."""

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(slots=True)
class Measured:
    """One contestant in one work: a value for each round, by figure; or why there is none."""

    values: dict[str, list[float]] = field(default_factory=dict)
    missing: str | None = None
    remark: str = ""

    def median(self, figure: str) -> float | None:
        """The middle one of the rounds, if there were any."""
        return statistics.median(self.values[figure]) if self.values.get(figure) else None

    def spread(self, figure: str) -> float:
        """Half the distance of the two extremes, as a share of the median."""
        values = self.values[figure]
        middle = statistics.median(values)
        return (max(values) - min(values)) / 2 / middle if middle else 0.0


@dataclass(slots=True)
class Record:
    """A whole run: where it was made, and what came out, by work and contestant."""

    machine: dict[str, Any]
    works: dict[str, dict[str, Measured]] = field(default_factory=dict)

    def of(self, work: str, contestant: str) -> Measured:
        """A place for what a contestant does in a work."""
        return self.works.setdefault(work, {}).setdefault(contestant, Measured())

    def median(self, work: str, contestant: str, figure: str) -> float | None:
        """The median of a figure, if it was measured."""
        measured = self.works.get(work, {}).get(contestant)
        return None if measured is None else measured.median(figure)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read what `write` has written."""
        stored = json.loads(path.read_text())
        if stored["format"] != FORMAT:
            raise ValueError(f"{path} has format {stored['format']}, this version reads {FORMAT}")
        works = {
            work: {name: Measured(**measured) for name, measured in contestants.items()}
            for work, contestants in stored["works"].items()
        }
        return cls(stored["machine"], works)
