"""Time that the database spends on one `group_send`, with one member and with 100,000."""

import asyncio
from typing import Final

import asyncpg

from benchmarks.actor import Stage
from benchmarks.contestants.contestant import Contestant
from benchmarks.crew import Crew, Figures
from benchmarks.works.fan_out import join_all
from benchmarks.works.messages import SMALL_BYTES, messages
from benchmarks.works.work import OURS, Figure, Goal, Scale, Work

_CACHES_BYTES: Final = 64 * 1024 * 1024
_PAUSE_SECONDS: Final = 0.1
_WARM_UP: Final = 10  # the first calls of a function plan what it does
_TRACK: Final = "ALTER DATABASE {} SET pg_stat_statements.track = 'top'"
_TIME: Final = """
    SELECT coalesce(sum(total_exec_time), 0) / 1000 FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query NOT LIKE '%pg_stat_statements%'
"""


async def send(stage: Stage, *, members: int, count: int) -> Figures:
    """Seconds of the database by message, as pg_stat_statements counts them: all statements, without the commits."""
    contestant = stage.contestant
    connection = await asyncpg.connect(contestant.addresses.postgres)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await connection.execute(_TRACK.format(await connection.fetchval("SELECT current_database()")))
    await contestant.open()
    await join_all(contestant, "one", 1)
    await join_all(contestant, "many", members)
    for group in ("one", "many"):
        await _send(contestant, group, _WARM_UP)
    figures = {group: await _seconds(contestant, connection, group, count) for group in ("one", "many")}
    await connection.close()
    return figures


async def _seconds(
    contestant: Contestant, connection: "asyncpg.Connection[asyncpg.Record]", group: str, count: int
) -> float:
    before = await connection.fetchval(_TIME)
    await _send(contestant, group, count)
    seconds: float = await connection.fetchval(_TIME) - before
    return seconds / count


async def _send(contestant: Contestant, group: str, count: int) -> None:
    made = messages(SMALL_BYTES)
    for _ in range(count):
        # Before the next message, this process hands the last one to 100,000 mailboxes. Meanwhile the processor forgets
        # what the server was about, which pays for that: let it be so with either group.
        b"x" * _CACHES_BYTES
        await asyncio.sleep(_PAUSE_SECONDS)
        await contestant.publish(group, next(made))


async def _measure(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("database_time.send", members=scale.largest_membership, count=scale.messages // 10)


WORKS: Final = (
    Work(
        name="database-time",
        title="database time of one group_send",
        contestants=(OURS,),
        measure=_measure,
        figures={"one": Figure("1 member", "s"), "many": Figure("100,000 members", "s")},
        goals=(Goal("many", None, at_most=1.2, against_figure="one"),),
        rounds=3,
        limit_seconds=120,
    ),
)
