"""Draws how servers share the work. Needs matplotlib."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.share.measure import Share

_BLUES: Final = ("#1f5fa8", "#5b8fcb", "#93b8e0", "#c5d9ef")
_GRID: Final = "#e3e5ea"


def draw(shares: Sequence[Share], path: Path) -> None:
    """Draw the CPU time for a message, and the part of each server, by the number of servers."""
    # The same figures make the same file: no date, no random ids.
    matplotlib.rcParams |= {"font.size": 9, "svg.hashsalt": "share"}
    figure = Figure(figsize=(8.5, 2.6), layout="constrained", facecolor="white")
    cost, rate = figure.subplots(1, 2)
    counts = sorted({len(share.messages) for share in shares})
    _draw_cost(cost, shares, counts)
    _draw_rate(rate, shares, counts)
    for axes in (cost, rate):
        axes.set_xticks(range(len(counts)), [f"{count} server{'s' if count > 1 else ''}" for count in counts])
        axes.grid(axis="y", color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _draw_cost(axes: Axes, shares: Sequence[Share], counts: Sequence[int]) -> None:
    """The CPU time of a message, one bar segment for the part of each server; the line goes over the rounds."""
    for place, count in enumerate(counts):
        rounds = [share for share in shares if len(share.messages) == count]
        bottom = 0.0
        for server in range(count):
            part = statistics.median(1e6 * share.cpu_seconds[server] / sum(share.messages) for share in rounds)
            axes.bar(place, part, bottom=bottom, color=_BLUES[server], width=0.6)
            bottom += part
        totals = [share.microseconds_per_message for share in rounds]
        axes.plot([place, place], [min(totals), max(totals)], color="#333333", linewidth=1)
    axes.set_title("CPU time of the servers, µs a message", loc="left", fontsize=9)


def _draw_rate(axes: Axes, shares: Sequence[Share], counts: Sequence[int]) -> None:
    """What the servers can take if each has a core: the busiest one decides."""
    for place, count in enumerate(counts):
        rates = [sum(share.messages) / max(share.cpu_seconds) for share in shares if len(share.messages) == count]
        axes.bar(place, statistics.median(rates), color=_BLUES[0], width=0.6)
        axes.plot([place, place], [min(rates), max(rates)], color="#333333", linewidth=1)
        axes.text(place, max(rates), f"{statistics.median(rates):,.0f}", ha="center", va="bottom")
    axes.margins(y=0.15)
    axes.set_title("messages a second if each server has one core", loc="left", fontsize=9)
