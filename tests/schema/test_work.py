"""Work on messages of a queue in SQL, against a model: each is done, given back or dead, whatever leaves the log."""

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.schema.plans import Step
from tests.support.log import let_pass, rotate
from tests.support.waiting import within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

EXAMPLES: Final = 6
STEPS: Final = 30
MOST_ATTEMPTS: Final = 3
HALF_OF_RETENTION: Final = 30
DAYS: Final = 10 * 86400.0
QUEUE: Final = "queue:asgi:jobs"
DEAD: Final = "queue:asgi:jobs.dead"
NODES: Final = ["node:asgi:ada", "node:asgi:bob"]
CLEAN: Final = """
TRUNCATE pgchannels.message, pgchannels.log_state, pgchannels.filled_slot, pgchannels.member, pgchannels.lease;
UPDATE pgchannels.log SET retention = '60 s';
SELECT pgchannels.extent();
"""
LEASES: Final = """
INSERT INTO pgchannels.lease (node, address, leased_until)
SELECT gen_random_uuid(), address, now() + interval '1 day' FROM unnest($1::text[]) AS address
"""
FIGURES: Final = "SELECT name, waiting, in_progress FROM pgchannels.queue_status WHERE waiting + in_progress > 0"
IS_DUE: Final = """
UPDATE pgchannels.message SET expires_at = now() - interval '1 s'
WHERE address = 'working:asgi:jobs' AND number = $1 AND id = $2
"""


@dataclass
class Job:
    """A message of the model: its place in the log while it is under work, and how often work on it has failed."""

    payload: bytes
    failures: int = 0
    place: tuple[int, int] = (0, 0)
    node: str = ""
    is_due: bool = False


@dataclass
class Model:
    """What waits, in order; what is under work; what is dead; and what was done."""

    waiting: list[Job] = field(default_factory=list)
    working: list[Job] = field(default_factory=list)
    dead: list[Job] = field(default_factory=list)

    def give_back(self, job: Job, *, is_counted: bool) -> None:
        """End the work on a job without success."""
        self.working.remove(job)
        job.failures += is_counted
        is_dead = is_counted and job.failures >= MOST_ATTEMPTS
        (self.dead if is_dead else self.waiting).append(Job(job.payload, job.failures))

    def give_back_abandoned(self, living: set[str]) -> None:
        """End the work that is due, or whose node is gone, in the order in which it was begun."""
        for job in sorted(self.working, key=lambda job: job.place):
            if job.is_due or job.node not in living:
                self.give_back(job, is_counted=True)


class Works(RuleBasedStateMachine):
    """One example: an empty log, what nodes do with its queue, and the same done to the model."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.random = Random(0)
        self.model = Model()
        self.living = set(NODES)
        self.calls: dict[str, tuple[int, int, list[Job]]] = {}  # the last of each node, if the log remembers it
        self.holder: Any = None
        self.connection: Connection = self.run(asyncpg.connect(self.url))
        self.run(self.connection.execute(CLEAN))
        self.run(self.connection.execute(LEASES, NODES))

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(within(step))

    @invariant()
    def view_shows_what_waits_and_what_is_in_progress(self) -> None:
        """The view of queues counts as the model does."""
        shown = self.run(self.connection.fetch(FIGURES))
        expected = {"jobs": (len(self.model.waiting), len(self.model.working)), "jobs.dead": (len(self.model.dead), 0)}
        assert {row["name"]: (row["waiting"], row["in_progress"]) for row in shown} == {
            name: figures for name, figures in expected.items() if any(figures)
        }

    @rule(count=st.integers(1, 5))
    def send(self, count: int) -> None:
        """Send jobs that do not expire."""
        payloads = [self.random.randbytes(8) for _ in range(count)]
        self.run(send(self.connection, payloads))
        self.model.waiting += [Job(payload) for payload in payloads]

    @rule(most=st.integers(1, 4), node=st.sampled_from(NODES), times=st.integers(1, 2), data=st.data())
    def take(self, most: int, node: str, times: int, data: st.DataObject) -> None:
        """Take jobs, and say that others are done; and all of it again, as after a lost answer."""
        done = [job for job in self.model.working if job.node == node and data.draw(st.booleans(), label="is done")]
        number = self.random.getrandbits(62)
        rows = [self.run(take(self.connection, number, most, node, done)) for _ in range(times)][-1]
        for job in done:
            self.model.working.remove(job)
        taken, self.model.waiting = self.model.waiting[:most], self.model.waiting[most:]
        assert [(row["payload"], row["attempts"] or 0) for row in rows if row["id"]] == [
            (job.payload, job.failures) for job in taken
        ]
        assert (rows[0]["lost"], rows[0]["late"]) == (0, 0)
        for row, job in zip(rows, taken, strict=False):
            job.place, job.node = (row["number"], row["id"]), node
        self.model.working += taken
        if taken:
            self.calls[node] = number, most, taken

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Repeat a call whose answer was lost: it brings what is still under work, and nothing else."""
        node = data.draw(st.sampled_from(sorted(self.calls)), label="node")
        number, most, taken = self.calls[node]
        rows = self.run(take(self.connection, number, most, node, []))
        assert [(row["number"], row["id"]) for row in rows if row["id"]] == [
            job.place for job in taken if any(job is working for working in self.model.working)
        ]
        assert {row["lost"] for row in rows} == {0}

    @precondition(lambda self: self.model.working)
    @rule(data=st.data(), is_counted=st.booleans(), times=st.integers(1, 2))
    def give_back(self, data: st.DataObject, is_counted: bool, times: int) -> None:
        """Give a job back, once or with a repetition."""
        job = data.draw(st.sampled_from(self.model.working), label="job")
        for _ in range(times):
            self.run(give_back(self.connection, [job.place], is_counted=is_counted))
        self.model.give_back(job, is_counted=is_counted)

    @precondition(lambda self: self.model.working)
    @rule(data=st.data())
    def become_due(self, data: st.DataObject) -> None:
        """Let the time of a job pass."""
        job = data.draw(st.sampled_from(self.model.working), label="job")
        self.run(self.connection.execute(IS_DUE, *job.place))
        job.is_due = True

    @rule(node=st.sampled_from(NODES))
    def die_or_return(self, node: str) -> None:
        """End the lease of a node, or let it take a new one."""
        if node in self.living:
            self.living.remove(node)
            self.run(self.connection.execute("DELETE FROM pgchannels.lease WHERE address = $1", node))
        else:
            self.living.add(node)
            self.run(self.connection.execute(LEASES, [node]))

    @rule()
    def give_back_abandoned(self) -> None:
        """Look for what nobody works on any more."""
        self.run(self.connection.fetchval("SELECT pgchannels.give_back_abandoned($1)", QUEUE))
        self.model.give_back_abandoned(self.living)

    @rule(turns=st.integers(1, 4))
    def rotate(self, turns: int) -> None:
        """Let half of the retention pass, again and again."""
        self.calls.clear()
        for _ in range(turns):
            self.run(let_pass(self.connection, HALF_OF_RETENTION))
            assert self.run(rotate(self.connection))

    @rule()
    def lock_or_unlock(self) -> None:
        """Keep the slots that there are from being emptied, as pg_dump does; or let them go."""
        if self.holder is None:
            self.holder = self.run(asyncpg.connect(self.url))
            self.run(self.holder.execute("BEGIN; LOCK TABLE pgchannels.message IN ACCESS SHARE MODE"))
        else:
            self.unlock()

    def unlock(self) -> None:
        if self.holder is not None:
            self.run(self.holder.close())
            self.holder = None

    def teardown(self) -> None:
        try:
            self.require_all()
        finally:
            self.unlock()
            self.run(self.connection.close())
            self.runner.close()

    def require_all(self) -> None:
        """At the end, everything that was not done can be taken, in its order."""
        self.run(self.connection.execute("DELETE FROM pgchannels.lease"))
        self.give_back_abandoned_at_the_end()
        for address, jobs in ((QUEUE, self.model.waiting), (DEAD, self.model.dead)):
            rows = self.run(take(self.connection, self.random.getrandbits(62), 1000, NODES[0], [], address=address))
            assert [row["payload"] for row in rows if row["id"]] == [job.payload for job in jobs]

    def give_back_abandoned_at_the_end(self) -> None:
        self.living.clear()
        self.give_back_abandoned()


async def send(connection: Connection, payloads: list[bytes]) -> None:
    """Send messages to the queue that last for days."""
    count = len(payloads)
    await connection.fetchrow(
        "SELECT * FROM pgchannels.deliver(NULL, 'infinity', $1, NULL, $2, $3, NULL, $4)",
        *([QUEUE] * count, payloads, [1_000_000] * count, DAYS),
    )


async def take(
    connection: Connection, number: int, most: int, node: str, done: list[Job], *, address: str = QUEUE
) -> list[Any]:
    """Take messages to work on them, and say what is done."""
    places = [job.place for job in done]
    ended = ([number for number, _ in places], [message_id for _, message_id in places]) if places else (None, None)
    return await connection.fetch(
        "SELECT * FROM pgchannels.take($1, 'infinity', $2, $3, $4, NULL, false, NULL, $5, $6, $7)",
        *(number, address, most, node, MOST_ATTEMPTS, *ended),
    )


async def give_back(connection: Connection, places: list[tuple[int, int]], *, is_counted: bool = True) -> None:
    """Give messages back, by their numbers and ids."""
    numbers, ids = [number for number, _ in places], [message_id for _, message_id in places]
    counted = [is_counted] * len(places)
    await connection.execute("SELECT pgchannels.give_back($1, $2, $3, $4)", QUEUE, numbers, ids, counted)


def test_work_behaves_as_its_model(owner_url: str) -> None:
    machine = type("WorksOfThisTest", (Works,), {"url": owner_url})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck)),
    )


@pytest.fixture
async def clean(connection: Connection) -> Connection:
    """An empty log with two living nodes."""
    await connection.execute(CLEAN)
    await connection.execute(LEASES, NODES)
    return connection


async def test_looking_through_work_reads_what_is_new_and_not_what_was_done_before(clean: Connection) -> None:
    await send(clean, [b"x"] * 500)
    [long, *others] = await take(clean, 1, 500, NODES[0], [])
    await take(clean, 2, 0, NODES[0], [Job(b"", place=(row["number"], row["id"])) for row in others])
    await clean.execute("SELECT pgchannels.give_back_abandoned($1)", QUEUE)
    query = "SELECT channel FROM pgchannels.message WHERE address = 'open:asgi:jobs'"
    assert await clean.fetchval(query) == f"{{500,{long['number']}}}"  # one job of long ago does not hold the rest


async def test_what_is_in_progress_is_counted_without_reading_what_was_done_before(clean: Connection) -> None:
    read: list[float] = []
    for jobs in (500, 2_000):
        await work_on(clean, jobs)
        plan = await clean.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {FIGURES}")
        read.append(sum(step.rows_read for step in Step(json.loads(plan)[0]["Plan"]).steps if step.reads_large_table))
        assert await clean.fetchval(FIGURES, column=2) == len(read)
    assert read[1] < read[0] + 10 < 100


async def work_on(connection: Connection, count: int) -> None:
    """Do all of so many jobs but the first, and look through the work of all."""
    for begin in range(0, count, 500):
        await send(connection, [b"x"] * 500)
        rows = await take(connection, count + begin, 500, NODES[0], [])
        done = [Job(b"", place=(row["number"], row["id"])) for row in rows[not begin :]]
        await take(connection, count + begin + 1, 0, NODES[0], done)
    await connection.execute("SELECT pgchannels.give_back_abandoned($1)", QUEUE)


async def test_work_of_another_log_does_not_end_what_has_its_number(clean: Connection) -> None:
    await send(clean, [b"before"])
    [row] = await take(clean, 1, 1, NODES[0], [])
    await clean.execute("TRUNCATE pgchannels.message")
    await send(clean, [b"after"])
    [other] = await take(clean, 2, 1, NODES[0], [])
    assert other["number"] == row["number"]
    [ended] = await take(clean, 3, 0, NODES[0], [Job(b"", place=(row["number"], row["id"]))])
    assert ended["late"] == 1
    await give_back(clean, [(row["number"], row["id"])])
    assert await clean.fetchval("SELECT count(*) FROM pgchannels.open_work($1)", QUEUE) == 1


async def test_work_that_was_given_to_another_is_late(clean: Connection) -> None:
    await send(clean, [b"x"])
    [row] = await take(clean, 1, 1, NODES[0], [])
    await clean.execute(IS_DUE, row["number"], row["id"])
    await clean.execute("SELECT pgchannels.give_back_abandoned($1)", QUEUE)
    [again] = await take(clean, 2, 1, NODES[1], [Job(b"", place=(row["number"], row["id"]))])
    assert (again["payload"], again["attempts"], again["late"]) == (b"x", 1, 1)


async def test_work_whose_answer_was_lost_is_given_back(clean: Connection) -> None:
    await send(clean, [b"known", b"unknown"])
    known, _ = await take(clean, 1, 2, NODES[0], [])
    await clean.execute("SELECT pgchannels.give_back_abandoned($1, $2, $3)", QUEUE, NODES[0], [known["id"]])
    [again] = await take(clean, 2, 5, NODES[0], [])
    assert again["payload"] == b"unknown"


async def test_repeated_call_brings_no_work_that_was_given_to_another(clean: Connection) -> None:
    await send(clean, [b"x", b"y"])
    await take(clean, 1, 2, NODES[0], [])  # the answer is lost
    await clean.execute("DELETE FROM pgchannels.lease WHERE address = $1", NODES[0])
    await clean.execute("SELECT pgchannels.give_back_abandoned($1)", QUEUE)
    [again, _] = await take(clean, 2, 2, NODES[1], [])
    assert again["attempts"] == 1
    rows = await take(clean, 1, 2, NODES[0], [])
    assert [(row["id"], row["lost"]) for row in rows] == [(None, 0)] * 2


async def test_work_of_many_that_died_is_given_back_in_pieces(clean: Connection) -> None:
    await send(clean, [b"x"] * 250)
    await take(clean, 1, 250, NODES[0], [])
    await clean.execute("DELETE FROM pgchannels.lease")
    for left, seconds in ((150, 0), (50, 0), (0, None)):
        assert await clean.fetchval("SELECT pgchannels.give_back_abandoned($1)", QUEUE) == seconds
        assert await clean.fetchval("SELECT count(*) FROM pgchannels.open_work($1)", QUEUE) == left


async def test_work_whose_message_has_left_the_log_ends(clean: Connection) -> None:
    await send(clean, [b"x"])
    await take(clean, 1, 1, NODES[0], [])
    await clean.execute("DELETE FROM pgchannels.lease")
    await clean.execute("DELETE FROM pgchannels.message WHERE address = $1", QUEUE)
    assert await clean.fetchval("SELECT pgchannels.give_back_abandoned($1)", QUEUE) is None
    assert await clean.fetchval("SELECT count(*) FROM pgchannels.open_work($1)", QUEUE) == 0


async def test_work_of_the_dead_leaves_the_log_when_it_expires(clean: Connection) -> None:
    await send(clean, [b"x"] * 3)
    await take(clean, 1, 3, NODES[0], [])
    await clean.execute("DELETE FROM pgchannels.lease")
    await clean.execute("UPDATE pgchannels.message SET expires_at = now() WHERE address = $1", QUEUE)
    for _ in range(6):
        await let_pass(clean, HALF_OF_RETENTION)
        await rotate(clean)
    assert await clean.fetchval("SELECT count(*) FROM pgchannels.message WHERE address <> 'gone:'") == 0


async def test_downgrade_gives_work_back(clean: Connection, owner_url: str) -> None:
    from pgchannels.database import migrations

    await send(clean, [b"x", b"y"])
    await take(clean, 1, 1, NODES[0], [])
    await clean.execute("GRANT SELECT ON pgchannels.queue_status TO pg_monitor")
    await migrations.downgrade(owner_url, revision="0001", may_lose=True)
    assert await clean.fetchval("SELECT has_table_privilege('pg_monitor', 'pgchannels.queue_status', 'SELECT')")
    rows = await clean.fetch("SELECT * FROM pgchannels.claim(2, 'infinity', $1, 5)", QUEUE)
    assert [row["payload"] for row in rows] == [b"y", b"x"]
    await migrations.upgrade(owner_url)
