"""What the page on performance says of many processes is what was measured, and the model agrees with it."""

import statistics
from typing import Final

import pytest

from benchmarks.model import Load, cost
from benchmarks.processes.record import Record, coefficient_rows, measured_rows, modelled_rows
from tests.support.snippets import ROOT

RECORD: Final = Record.read(ROOT / "docs/benchmarks/processes.json")
PAGE: Final = (ROOT / "docs/performance.md").read_text().splitlines()


@pytest.mark.parametrize(
    "row", [*coefficient_rows(RECORD.coefficients), *measured_rows(RECORD), *modelled_rows(RECORD.coefficients)]
)
def test_table_has_what_was_measured_and_what_follows_from_it(row: str) -> None:
    assert row in PAGE


@pytest.mark.parametrize("kind", ["idle", "single", "batches", "heard"])
@pytest.mark.parametrize("processes", [50, 100, 200])
def test_model_agrees_with_what_was_measured(kind: str, processes: int) -> None:
    observed = RECORD.observed(kind, processes)
    measured = statistics.median(one.cores for one in observed)
    by_model = statistics.median(one.counts.cpu_seconds(RECORD.coefficients) for one in observed)
    assert by_model == pytest.approx(measured, rel=0.5, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "processes", "is_bare"),
    [("idle", 300, False), ("single", 300, False), ("single", 500, True), ("single", 1_000, True)],
)
def test_model_agrees_with_what_it_was_not_fitted_to(kind: str, processes: int, is_bare: bool) -> None:
    [one] = RECORD.observed(kind, processes, is_bare=is_bare)
    assert one.counts.cpu_seconds(RECORD.coefficients) == pytest.approx(one.cores, rel=0.25)


@pytest.mark.parametrize("processes", [50, 100, 200])
def test_every_commit_wakes_every_process(processes: int) -> None:
    for one in RECORD.observed("single", processes):
        assert one.wakes_seen == pytest.approx(one.counts.wakes, rel=0.25)


def test_costs_of_a_load() -> None:
    load = Load(processes=100, messages=50, batch=5, concerned=2, message_bytes=400, heartbeat=10, connections_each=2)
    costs = cost(load, RECORD.coefficients)
    assert (costs.commits, costs.wakes, costs.bytes, costs.connections) == (20, 2_000, 50_000, 200)


def test_only_the_concerned_are_woken_where_the_server_can() -> None:
    load = Load(processes=100, messages=50, batch=5, concerned=2, heartbeat=10, is_targeted=True)
    assert cost(load, RECORD.coefficients).wakes == 10 * 10 + 10
    assert cost(Load(processes=4, messages=50, batch=5, is_targeted=True), RECORD.coefficients).wakes == 10 * 4 + 0.8
