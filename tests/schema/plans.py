"""What the server tells of how it ran each statement, also of those inside functions."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

LARGE_TABLES: Final = frozenset({"message", "subscription", "node", "lease", "member", "full_channel", "outbox"})

_EXPLAIN: Final = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_level": "warning",  # to the client, not into the server's log
}
_MOST_BLOCKS_TO_FIND: Final = 256  # on the ways through an index, to as many places as a request names
_MOST_BLOCKS_PER_ROW: Final = 2
_SHOWN: Final = ("Index Cond", "Recheck Cond", "Filter", "Join Filter", "Hash Cond", "Merge Cond", "Disabled")


@dataclass(frozen=True, slots=True)
class Step:
    """A node of a plan, as `EXPLAIN (ANALYZE, FORMAT JSON)` shows it."""

    facts: dict[str, Any]

    @property
    def steps(self) -> "Iterator[Step]":
        """This one and all below it, from the top."""
        yield self
        for part in self.facts.get("Plans", ()):
            yield from Step(part).steps

    @property
    def table(self) -> str | None:
        """The table that it reads or changes; of a slot that is the log."""
        name = self.facts.get("Relation Name")
        return None if name is None else re.sub(r"^message_\d+$", "message", name)

    @property
    def rows_read(self) -> float:
        """How many rows it took from its table, those that it threw away as well."""
        kinds = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
        return sum(float(self.facts.get(kind, 0)) for kind in kinds) * self.times

    @property
    def times(self) -> int:
        """How often it ran."""
        times: int = self.facts["Actual Loops"]
        return times

    @property
    def blocks(self) -> int:
        """How many blocks of its table and of the index it looked into."""
        hits, reads = self.facts["Shared Hit Blocks"], self.facts["Shared Read Blocks"]
        return int(hits + reads)

    @property
    def reads_large_table(self) -> bool:
        """Whether it reads rows of a table that grows with the traffic."""
        return self.table in LARGE_TABLES and self.facts["Node Type"].endswith("Scan")

    @property
    def is_by_index(self) -> bool:
        """Whether an index leads it to the rows that it wants."""
        match self.facts["Node Type"]:
            case "Bitmap Heap Scan":
                return any("Index Cond" in step.facts for step in self.steps)
            case "Index Scan" | "Index Only Scan":
                # `EXISTS (SELECT FROM table)` takes any one row: the first of the index.
                return "Index Cond" in self.facts or self.facts.get("Parent Relationship") == "InitPlan"
        return False

    def fault(self, *, most_rows: int) -> str | None:
        """What it reads that it should not, if it does."""
        if not self.is_by_index:
            return "the whole"
        if self.rows_read > most_rows:
            return f"{self.rows_read:g} rows"
        # An index on (a, b) that is asked for b alone is walked from end to end.
        if self.blocks > self.times * _MOST_BLOCKS_TO_FIND + self.rows_read * _MOST_BLOCKS_PER_ROW:
            return f"{self.blocks} blocks for {self.rows_read:g} rows"
        return None

    def lines(self, depth: int = 0) -> Iterator[str]:
        """The plan as text."""
        names = [str(self.facts[key]) for key in ("Node Type", "Relation Name", "Index Name") if key in self.facts]
        shown = [f"{key}: {self.facts[key]}" for key in _SHOWN if self.facts.get(key)]
        yield "  " * depth + "; ".join([" ".join(names), *shown, f"{self.rows_read:g} rows, {self.blocks} blocks"])
        for part in self.facts.get("Plans", ()):
            yield from Step(part).lines(depth + 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement, and how the server ran it."""

    text: str
    top: Step

    def faults(self, *, most_rows: int) -> Iterator[str]:
        """What makes it slower as the tables grow."""
        for step in self.top.steps:
            if step.reads_large_table and (fault := step.fault(most_rows=most_rows)):
                yield f"{step.facts['Node Type']} reads {fault} of {step.facts['Relation Name']}"

    def __str__(self) -> str:
        return "\n".join([self.text.strip(), *self.top.lines(depth=1)])


class Explained:
    """An engine on whose connections the server explains all that it runs; for a superuser."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._notices: list[str] = []
        self.engine: AsyncEngine = create_async_engine("postgresql+asyncpg://", async_creator=self._connect)

    def plans(self) -> list[Plan]:
        """How it ran what came through until now."""
        found = (json.loads(explained) for explained in self._notices)
        return [Plan(facts["Query Text"], Step(facts["Plan"])) for facts in found]

    def forget(self) -> None:
        """Leave out of `plans` what came through until now."""
        self._notices.clear()

    async def _connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await asyncpg.connect(self._url, server_settings=_EXPLAIN)
        connection.add_log_listener(self._take)
        return connection

    def _take(self, _: object, notice: Any) -> None:
        _, is_plan, explained = notice.message.partition("plan:\n")
        if is_plan:
            self._notices.append(explained)
