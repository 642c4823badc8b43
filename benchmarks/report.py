"""A record as tables in Markdown: the goals first, then every work with all contestants."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.contestants import ENTRIES
from benchmarks.record import Measured, Record
from benchmarks.units import formatted
from benchmarks.works import WORKS, Work
from benchmarks.works.work import Figure, Goal


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal and what became of it in a run; `reached` is None where something was not measured."""

    work: Work
    goal: Goal
    reached: float | None

    @property
    def is_met(self) -> bool | None:
        """Whether it was met."""
        if self.reached is None:
            return None
        if self.goal.at_least is not None:
            return self.reached >= self.goal.at_least
        assert self.goal.at_most is not None
        return self.reached <= self.goal.at_most


def judge(record: Record) -> list[Judged]:
    """All goals of the works that a record has."""
    return [
        Judged(work, goal, _reached(record, work, goal))
        for work in WORKS
        if work.name in record.works
        for goal in work.goals
    ]


def markdown(record: Record) -> str:
    """The whole report."""
    works = [work for work in WORKS if work.name in record.works]
    return "\n".join(
        [*_goals(record), "", *(line for work in works for line in _work(record, work)), *_machine(record)]
    )


def _reached(record: Record, work: Work, goal: Goal) -> float | None:
    ours = record.median(work.name, goal.of, goal.figure)
    if goal.against is None and goal.against_figure is None:
        return ours
    theirs = record.median(work.name, goal.against or goal.of, goal.against_figure or goal.figure)
    return ours / theirs if ours is not None and theirs else None


def _goals(record: Record) -> Iterator[str]:
    yield "| work | figure | goal | this run | |"
    yield "|---|---|---|---|---|"
    for judged in judge(record):
        work, goal = judged.work, judged.goal
        verdict = {True: "met", False: "**missed**", None: "not measured"}[judged.is_met]
        figure = f"{_ours(goal)}{work.figures[goal.figure].title}"
        yield f"| {work.title} | {figure} | {_goal(work, goal)} | {_ratio(judged)} | {verdict} |"


def _ours(goal: Goal) -> str:
    return "" if goal.of == "pgchannels" else f"{ENTRIES[goal.of].title}: "


def _goal(work: Work, goal: Goal) -> str:
    sign, limit = ("≥", goal.at_least) if goal.at_least is not None else ("≤", goal.at_most)
    assert limit is not None
    if goal.against is None and goal.against_figure is None:
        return f"{sign} {formatted(limit, work.figures[goal.figure].unit)}"
    what = ENTRIES[goal.against].title if goal.against else work.figures[goal.against_figure or goal.figure].title
    return f"{sign} {limit:g} × {what}"


def _ratio(judged: Judged) -> str:
    if judged.reached is None:
        return ""
    if judged.goal.against is None and judged.goal.against_figure is None:
        return formatted(judged.reached, judged.work.figures[judged.goal.figure].unit)
    return f"{judged.reached:.2f} ×"


def _work(record: Record, work: Work) -> Iterator[str]:
    yield f"## {work.title}"
    yield ""
    yield f"| `{work.name}` | {' | '.join(figure.title for figure in work.figures.values())} |"
    yield f"|---|{'---|' * len(work.figures)}"
    for name, measured in record.works[work.name].items():
        cells = [_cell(measured, name, figure) for name, figure in work.figures.items()]
        if measured.missing is not None:
            cells = [measured.missing, *[""] * (len(cells) - 1)]
        remark = f" ({measured.remark})" if measured.remark else ""
        yield f"| {ENTRIES[name].title}{remark} | {' | '.join(cells)} |"
    yield ""


def _cell(measured: Measured, name: str, figure: Figure) -> str:
    middle = measured.median(name)
    if middle is None:
        return ""
    return f"{formatted(middle, figure.unit)} ± {measured.spread(name):.0%}"


def _machine(record: Record) -> Iterator[str]:
    yield "## Versions and settings"
    yield ""
    for name, value in record.machine.items():
        told = (
            ", ".join(f"{package} {number}" for package, number in value.items()) if isinstance(value, dict) else value
        )
        yield f"* {name}: {told}"
    yield ""
