"""Draws processes against cost: what was measured, and the line of the model. Needs matplotlib."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.model import Coefficients, Load, cost
from benchmarks.processes.measure import Observation
from benchmarks.processes.record import SINGLES_PER_SECOND

_BLUE: Final = "#1f5fa8"
_GREEN: Final = "#2b8a5b"
_ORANGE: Final = "#d9730d"
_GRID: Final = "#e3e5ea"
_STEPS: Final = 74  # of a tenth, to a thousand


def draw(observations: Sequence[Observation], coefficients: Coefficients, path: Path) -> None:
    """Draw the cores of the server, idle and with single messages, and the throughput that is left."""
    # The same figures make the same file: no date, no random ids.
    matplotlib.rcParams |= {"font.size": 9, "svg.hashsalt": "processes"}
    figure = Figure(figsize=(8.5, 3.4), layout="constrained", facecolor="white")
    cores, rate = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _draw_cores(cores, observations, coefficients)
    _draw_rates(rate, observations)
    for axes in (cores, rate):
        axes.set_xlabel("listening processes")
        axes.grid(color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def _draw_cores(axes: Axes, observations: Sequence[Observation], coefficients: Coefficients) -> None:
    places = [round(1.1**power) for power in range(_STEPS)]
    for kind, color, rate, label in (
        ("single", _BLUE, SINGLES_PER_SECOND, f"{SINGLES_PER_SECOND} commits a second"),
        ("idle", _GREEN, 0, "nothing is sent: heartbeats"),
    ):
        now, later = (
            [
                cost(Load(processes=place, messages=rate, is_targeted=is_targeted), coefficients).cores
                for place in places
            ]
            for is_targeted in (False, True)
        )
        axes.plot(places, now, color=color, label=label)
        axes.plot(places, later, ":", color=color)
        _points(axes, observations, kind, color=color)
    _points(axes, observations, "single", color=_BLUE, is_bare=True)
    axes.plot([], [], "o", color=_BLUE, markersize=4, markerfacecolor="white", label="up to 100, bare sessions")
    axes.plot([], [], ":", color="#555555", label="on PostgreSQL 19, by the model")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title("Cores of the server: measured (points), by the model (lines)", loc="left", fontsize=9)


def _draw_rates(axes: Axes, observations: Sequence[Observation]) -> None:
    for kind, color, label in (("saturated", _BLUE, "100 senders"), ("one by one", _ORANGE, "one message at a time")):
        used = [one for one in observations if one.kind == kind and not one.is_bare]
        counts = sorted({one.processes for one in used})
        rates = [statistics.median(one.counts.messages for one in used if one.processes == count) for count in counts]
        axes.plot(counts, [rate / rates[0] for rate in rates], "o-", color=color, label=label, markersize=4)
    axes.set_ylim(bottom=0)
    axes.set_title("Messages a second, alone = 1", loc="left", fontsize=9)


def _points(axes: Axes, observations: Sequence[Observation], kind: str, *, color: str, is_bare: bool = False) -> None:
    used = [one for one in observations if one.kind == kind and one.is_bare == is_bare]
    places, cores = [one.processes for one in used], [one.cores for one in used]
    axes.plot(places, cores, "o", color=color, markersize=4, markerfacecolor="white" if is_bare else color)
