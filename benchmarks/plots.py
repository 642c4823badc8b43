"""Draws a record: one SVG for each group of works. Needs matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.contestants import ENTRIES
from benchmarks.record import Record
from benchmarks.units import formatted
from benchmarks.works import WORKS, Work

_OURS: Final = "#1f5fa8"
_LIMIT: Final = "#2b8a5b"
_OTHERS: Final = "#b9c0cc"
_GRID: Final = "#e3e5ea"
_PLOTS: Final = {
    "throughput": ("throughput-", "rate"),
    "latency": ("latency-", "p50"),
    "latency-p99": ("latency-", "p99"),
    "fan-out": ("fan-out-", "last"),
    "queue": ("queue-", "rate"),
    "threads": ("threads", "rate"),
}


def draw(record: Record, directory: Path) -> None:
    """Draw what a record has into files of a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    # The same record makes the same files: no date, no random ids.
    matplotlib.rcParams |= {"font.size": 9, "svg.hashsalt": "benchmarks"}
    for name, (begins, figure) in _PLOTS.items():
        works = [work for work in WORKS if work.name.startswith(begins) and _contestants(record, work, figure)]
        if works:
            _draw(record, works, figure, directory / f"{name}.svg")


def _draw(record: Record, works: Sequence[Work], figure: str, path: Path) -> None:
    heights = [0.5 + len(_contestants(record, work, figure)) for work in works]
    drawing = Figure(figsize=(8.5, 0.5 + 0.27 * sum(heights)), layout="constrained", facecolor="white")
    for axes, work in zip(
        drawing.subplots(len(works), 1, squeeze=False, height_ratios=heights)[:, 0], works, strict=True
    ):
        _draw_work(axes, record, work, figure)
    drawing.savefig(path, metadata={"Date": None})


def _draw_work(axes: Axes, record: Record, work: Work, figure: str) -> None:
    names = _contestants(record, work, figure)[::-1]
    for place, name in enumerate(names):
        values = record.works[work.name][name].values[figure]
        middle = record.works[work.name][name].median(figure) or 0.0
        axes.barh(place, middle, color=_color(name), height=0.7)
        axes.plot([min(values), max(values)], [place, place], color="#333333", linewidth=1)
        axes.text(max(values), place, f"  {formatted(middle, work.figures[figure].unit)}", va="center")
    axes.set_yticks(range(len(names)), [ENTRIES[name].title for name in names])
    axes.set_title(f"{work.title}: {work.figures[figure].title}", loc="left", fontsize=9)
    axes.set_xscale("log")  # the slowest takes a hundred times as long as the fastest
    axes.margins(x=0.18)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelbottom=False, length=0, which="both")
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _contestants(record: Record, work: Work, figure: str) -> list[str]:
    measured = record.works.get(work.name, {})
    names = [name for name in measured if measured[name].values.get(figure)]
    return sorted(
        names, key=lambda name: measured[name].median(figure) or 0, reverse=work.figures[figure].more_is_better
    )


def _color(name: str) -> str:
    if name == "bare":
        return _LIMIT
    return _OURS if name.startswith("pgchannels") else _OTHERS
