"""Workers killed in the middle of their work: every job is done at least once, none is lost, attempts are counted."""

import asyncio
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

import pytest

from pgchannels import MessageLayer
from tests.support.log import let_pass, rotate
from tests.support.roads import Connection
from tests.support.waiting import until, within

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = int(os.environ.get("PGCHANNELS_TEST_KILLS", "12"))
JOBS_EACH: Final = 5  # for each kill
TASKS: Final = 3
# A kill is noticed when the lease ends, after half a minute; the test ends leases of those whose session is gone.
END_LEASES: Final = """
UPDATE pgchannels.lease AS l SET leased_until = clock_timestamp() - interval '1 s' FROM pgchannels.node AS n
WHERE n.id = l.node AND n.process_id = ANY ($1)
"""


class Workers:
    """What workers wrote: how often each job was taken and done, and with which attempts."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.taken: Counter[int] = Counter()
        self.done: Counter[int] = Counter()
        self.attempts: defaultdict[int, list[int]] = defaultdict(list)
        self.killed: list[int] = []

    async def begin(self) -> int:
        """Start a worker; returns its process ID."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self._next("began")

    async def end(self, worker: int, number: int) -> None:
        """Kill a worker with SIGKILL, and read what it wrote before that."""
        self.killed.append(worker)
        os.kill(worker, number)
        assert await self._next("gone") == worker

    async def write(self, lines: int) -> None:
        """Wait until a worker has written so many lines."""
        for _ in range(lines):
            await self._next("took", "done")

    async def _next(self, *kinds: str) -> int:
        assert self._process.stdout is not None
        while True:
            words = (await within(self._process.stdout.readline())).split()
            assert words or not self._process.stdout.at_eof()
            if len(words) != 3:
                continue  # the last line of one that was killed
            kind, number, attempts = words[0].decode(), int(words[1]), int(words[2])
            if kind == "took":
                self.taken[number] += 1
                self.attempts[number].append(attempts)
            elif kind == "done":
                self.done[number] += 1
            if kind in kinds:
                return number


@asynccontextmanager
async def new_workers(url: str, *, visible_after: float) -> AsyncIterator[Workers]:
    """Workers one after another, all gone at the end of the block."""
    arguments = "-W", "error", "-m", "tests.faults.killed_worker", url, str(TASKS), str(visible_after)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Workers(process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


@pytest.mark.parametrize("visible_after", [0.0, 0.5], ids=["lease", "visible_after"])
async def test_every_job_of_workers_that_are_killed_is_done(
    database_url: str, connection: Connection, visible_after: float
) -> None:
    random, jobs = Random(1), range(KILLS * JOBS_EACH)
    async with (
        MessageLayer(database_url, capacity=len(jobs)) as layer,  # workers are killed before they have done all
        new_workers(database_url, visible_after=visible_after) as workers,
    ):
        for kill in range(KILLS):
            for job in jobs[kill * JOBS_EACH : (kill + 1) * JOBS_EACH]:
                await layer.send("jobs", job, expiry=86400)
            worker = await workers.begin()
            await workers.write(random.randint(1, 6))
            await workers.end(worker, signal.SIGKILL)
            if not visible_after:
                await connection.execute(END_LEASES, workers.killed[-1:])
            if kill % 5 == 0:
                await let_pass(connection, 30)  # the log rotates while jobs wait and are under work
                await rotate(connection)
        await workers.begin()
        while set(workers.done) != set(jobs):
            await workers.write(1)
        await until(lambda: nothing_left(connection))
    for job, attempts in workers.attempts.items():
        # Each time that it was taken counts, also where the worker was killed before it could write that.
        assert attempts == sorted(set(attempts)), (job, attempts)
    assert sum(workers.taken.values()) > len(jobs)  # some were taken again
    print(f"{KILLS} kills, {len(jobs)} jobs, taken {sum(workers.taken.values())}, done {sum(workers.done.values())}")


async def nothing_left(connection: Connection) -> bool:
    """Whether no job waits, and none is under work."""
    query = "SELECT waiting FROM pgchannels.queue_status WHERE name = 'jobs'"
    under_work = "SELECT count(*) FROM pgchannels.open_work('queue:asgi:jobs')"
    return not await connection.fetchval(query) and not await connection.fetchval(under_work)
