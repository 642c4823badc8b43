"""Draws a soak: sizes beside the window's traffic, rate and latency over time. Needs matplotlib."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.soak.report import Report, percentiles
from benchmarks.soak.samples import Sample

_BLUE: Final = "#1f5fa8"
_ORANGE: Final = "#d9730d"
_GREEN: Final = "#2b8a5b"
_BAND: Final = "#e9ebf0"
_GRID: Final = "#e3e5ea"


def draw(report: Report, path: Path) -> None:
    """Draw a report into a file of the kind that its name says."""
    # The same samples make the same file: no date, no random ids.
    matplotlib.rcParams |= {
        "font.size": 10,
        "svg.hashsalt": "soak",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    figure = Figure(figsize=(9, 7.5), layout="constrained", facecolor="white")
    sizes, rate, latency = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1.4])
    _draw_sizes(sizes, report)
    _draw_rate(rate, report.samples)
    _draw_latency(latency, report.samples)
    _shade_dump(sizes, report.samples, label="pg_dump holds its locks")
    for axes in (rate, latency):
        _shade_dump(axes, report.samples)
    for axes in (sizes, rate, latency):
        _finish(axes, report.samples)
    latency.set_xlabel("seconds since the first message")
    figure.align_ylabels()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_sizes(axes: Axes, report: Report) -> None:
    seconds = _seconds(report.samples)
    axes.plot(seconds, [sample.schema_bytes for sample in report.samples], color=_BLUE, linewidth=1.8, label="schema")
    traffic = f"payloads published in the last {report.retention_seconds:g} s"
    axes.plot(seconds, [sample.window_bytes for sample in report.samples], color=_ORANGE, linewidth=1.8, label=traffic)
    others = [sample.schema_bytes - sample.table_bytes["message"] for sample in report.samples]
    axes.plot(seconds, others, color=_GREEN, label="schema without the log")
    axes.axhline(
        report.multiple * report.window_bytes, color=_BLUE, linestyle=":", label=f"limit: {report.multiple:g} windows"
    )
    axes.set_yscale("log")
    axes.set_ylabel("size")
    axes.yaxis.set_major_formatter(FuncFormatter(_bytes))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _draw_rate(axes: Axes, samples: Sequence[Sample]) -> None:
    pairs = itertools.pairwise(samples)
    rates = [(after.published - before.published) / (after.seconds - before.seconds) for before, after in pairs]
    axes.plot(_seconds(samples[1:]), rates, color=_BLUE)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("published\nmessages/s")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _draw_latency(axes: Axes, samples: Sequence[Sample]) -> None:
    each = [percentiles([latency for kind in sample.latencies.values() for latency in kind]) for sample in samples]
    axes.plot(_seconds(samples), [p99 * 1000 for _, p99 in each], color=_ORANGE, label="99th percentile")
    axes.plot(_seconds(samples), [p50 * 1000 for p50, _ in each], color=_BLUE, label="median")
    axes.set_yscale("log")
    axes.set_ylabel("publish to\ndelivery, ms")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _shade_dump(axes: Axes, samples: Sequence[Sample], *, label: str | None = None) -> None:
    held = [sample.seconds for sample in samples if sample.held]
    if held:
        axes.axvspan(held[0], held[-1], color=_BAND, zorder=0, label=label)


def _finish(axes: Axes, samples: Sequence[Sample]) -> None:
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_xlim(0, samples[-1].seconds)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, handlelength=1.5)


def _seconds(samples: Sequence[Sample]) -> list[float]:
    return [sample.seconds for sample in samples]


def _bytes(value: float, _: object) -> str:
    return f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB"
