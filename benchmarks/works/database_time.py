"""Time that the database spends on one `group_send`, with one member and with 100,000."""

from typing import Final

import asyncpg

from benchmarks.actor import Stage
from benchmarks.contestants.contestant import Contestant
from benchmarks.crew import Crew, Figures
from benchmarks.works.fan_out import join_all
from benchmarks.works.messages import SMALL_BYTES, messages
from benchmarks.works.work import OURS, Figure, Goal, Scale, Work

_MESSAGES: Final = 100
_WARM_UP: Final = 20  # the first calls of a function plan what it does
_TRACK: Final = "ALTER DATABASE {} SET pg_stat_statements.track = 'top'"
_TIME: Final = """
    SELECT coalesce(sum(total_exec_time), 0) / 1000 FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND query NOT LIKE '%pg_stat_statements%'
"""


async def send(stage: Stage, *, members: int) -> Figures:
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
    figures = {group: await _seconds(contestant, connection, group) for group in ("one", "many")}
    await connection.close()
    return figures


async def _seconds(contestant: Contestant, connection: "asyncpg.Connection[asyncpg.Record]", group: str) -> float:
    before = await connection.fetchval(_TIME)
    await _send(contestant, group, _MESSAGES)
    seconds: float = await connection.fetchval(_TIME) - before
    return seconds / _MESSAGES


async def _send(contestant: Contestant, group: str, count: int) -> None:
    made = messages(SMALL_BYTES)
    for _ in range(count):
        await contestant.publish(group, next(made))


async def _measure(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("database_time.send", members=scale.largest_membership)


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
