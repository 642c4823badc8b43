"""The figures of a soak, and whether its promises were kept."""

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.soak.samples import Sample
from benchmarks.soak.traffic import Kind, Traffic

_PERIOD_SECONDS: Final = 60
_MEGABYTE: Final = 1_000_000


@dataclass(slots=True, kw_only=True)
class Report:
    """What was seen; `str(report)` is a table of it."""

    traffic: Traffic
    retention_seconds: float
    multiple: float
    samples: list[Sample] = field(default_factory=list)
    stopped_by: list[str] = field(default_factory=list)

    @property
    def window_bytes(self) -> int:
        """The most payload that was published within one retention."""
        return max(sample.window_bytes for sample in self.samples)

    @property
    def schema_bytes(self) -> int:
        """The most that the schema took."""
        return max(sample.schema_bytes for sample in self.samples)

    @property
    def ratio(self) -> float:
        """How many windows of traffic the schema took at most."""
        return _divided(self.schema_bytes, self.window_bytes)

    @property
    def lost(self) -> int:
        """How many messages were sent and never came."""
        return sum(stream.under_way for stream in self.traffic.streams)

    @property
    def duplicates(self) -> int:
        """How many came twice."""
        return sum(stream.duplicates for stream in self.traffic.streams)

    @property
    def out_of_order(self) -> int:
        """How many of a topic or channel came before an earlier one of the same sender."""
        return sum(stream.out_of_order for stream in self.traffic.streams)

    @property
    def failures(self) -> list[str]:
        """What was not as promised, one sentence each."""
        found = [f"stopped early: {reason}" for reason in self.stopped_by]
        found += [f"{count} messages {what}" for what, count in self._accounts().items() if count]
        if self.ratio > self.multiple:
            found.append(f"the schema took {self.ratio:.1f} windows of traffic, more than {self.multiple:g}")
        return found

    def __str__(self) -> str:
        verdict = self.failures or ["All promises were kept."]
        return "\n".join([*self._totals(), "", *self._comparison(), "", *verdict])

    def _accounts(self) -> dict[str, int]:
        return {"lost": self.lost, "delivered twice": self.duplicates, "out of order": self.out_of_order}

    def _totals(self) -> Iterator[str]:
        last = self.samples[-1]
        yield f"{last.published:,} messages, {_megabytes(last.payload_bytes)} of payload in {last.seconds:.0f} s"
        yield ", ".join(f"{count} {what}" for what, count in self._accounts().items())
        yield f"{len(self.traffic.gaps):,} times a receiver was told that messages are lost, or may be"
        if held := sum(sample.held for sample in self.samples):
            yield f"pg_dump held its locks for about {held} s"
        yield f"traffic of a window of {self.retention_seconds:g} s, at most: {_megabytes(self.window_bytes)}"
        yield f"schema, at most: {_megabytes(self.schema_bytes)}, {self.ratio:.1f} windows (limit: {self.multiple:g})"

    def _comparison(self) -> Iterator[str]:
        end = self.samples[-1].seconds
        seconds = min(_PERIOD_SECONDS, end / 2)
        first = self.samples[: 1 + bisect_left(self.samples, seconds, key=_seconds)]
        last = self.samples[bisect_right(self.samples, end - seconds, key=_seconds) - 1 :]
        yield f"{'':<36}{f'first {seconds:.0f} s':>16}{f'last {seconds:.0f} s':>16}"
        for name, figure in _FIGURES.items():
            yield f"{name:<36}{figure(first):>16}{figure(last):>16}"


def _rate(samples: Sequence[Sample]) -> str:
    return f"{_divided(_grown(samples, _published), _grown(samples, _seconds)):,.0f}"


def _cpu(seconds: Callable[[Sample], float]) -> Callable[[Sequence[Sample]], str]:
    return lambda samples: f"{1e6 * _divided(_grown(samples, seconds), _grown(samples, _published)):.0f}"


def _latency(kind: Kind) -> Callable[[Sequence[Sample]], str]:
    def figure(samples: Sequence[Sample]) -> str:
        p50, p99 = percentiles([seconds for sample in samples for seconds in sample.latencies[kind]])
        return f"{p50 * 1000:.1f} / {p99 * 1000:.1f}"

    return figure


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile; not a number where there are too few values."""
    if len(values) < 2:
        return math.nan, math.nan
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


def _seconds(sample: Sample) -> float:
    return sample.seconds


def _published(sample: Sample) -> float:
    return sample.published


def _grown(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    return figure(samples[-1]) - figure(samples[0])


def _divided(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _most(size: Callable[[Sample], int]) -> Callable[[Sequence[Sample]], str]:
    return lambda samples: _megabytes(max(map(size, samples)))


def _megabytes(size: int) -> str:
    return f"{size / _MEGABYTE:.1f} MB"


_FIGURES: Final[dict[str, Callable[[Sequence[Sample]], str]]] = {
    "messages/s": _rate,
    **{f"{kind}, p50 / p99 in ms": _latency(kind) for kind in (Kind.TOPIC, Kind.CHANNEL, Kind.QUEUE)},
    "CPU of the layer, µs a message": _cpu(lambda sample: sample.layer_cpu_seconds),
    "CPU of the server, µs a message": _cpu(lambda sample: sample.server_cpu_seconds),
    "schema, at most": _most(lambda sample: sample.schema_bytes),
    "catalog of the database, at most": _most(lambda sample: sample.catalog_bytes),
    "memory of the process, at most": _most(lambda sample: sample.resident_bytes),
    "slots, at most": lambda samples: str(max(sample.slots for sample in samples)),
    "dead tuples, at most": lambda samples: f"{max(sum(sample.dead_tuples.values()) for sample in samples):,}",
}
