"""The works, in the order of the report."""

from typing import Final

from benchmarks.works import (
    backlog,
    database_time,
    fan_out,
    idle_listeners,
    latency,
    membership,
    memory,
    opening,
    threads,
    throughput,
    transactions,
    work_queue,
)
from benchmarks.works.work import Work

WORKS: Final[tuple[Work, ...]] = (
    *throughput.WORKS,
    *latency.WORKS,
    *fan_out.WORKS,
    *database_time.WORKS,
    *membership.WORKS,
    *work_queue.WORKS,
    *threads.WORKS,
    *idle_listeners.WORKS,
    *backlog.WORKS,
    *memory.WORKS,
    *opening.WORKS,
    *transactions.WORKS,
)

__all__ = ["WORKS", "Work"]
