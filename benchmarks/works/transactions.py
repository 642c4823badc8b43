"""What an application's own transactions cost when they publish, themselves or by a trigger."""

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from benchmarks.actor import Stage
from benchmarks.contestants.channels_layer import ChannelsLayer
from benchmarks.contestants.contestant import Message
from benchmarks.contestants.pgchannels_api import PgchannelsApi
from benchmarks.crew import Crew, Figures
from benchmarks.works.messages import SMALL_BYTES, messages
from benchmarks.works.work import PUBSUB, Figure, Goal, Scale, Work

_OURS: Final = "pgchannels-api"
_GROUP: Final = "orders"
_WARM_UP: Final = 20
_MANY_ROWS: Final = 1000
_INSERT: Final = "INSERT INTO public.{} (text) VALUES ($1)"
_INSERT_MANY: Final = "INSERT INTO public.{} (text) SELECT $1 FROM generate_series(1, $2)"
_TABLES: Final = """
    DROP TABLE IF EXISTS public.quiet, public.watched;
    CREATE TABLE public.quiet (id bigserial PRIMARY KEY, text text);
    CREATE TABLE public.watched (id bigserial PRIMARY KEY, text text);
"""

Connection = "asyncpg.Connection[asyncpg.Record]"


@asynccontextmanager
async def _application(stage: Stage) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection of the application, with its tables; one process receives."""
    await stage.contestant.open()
    await stage.contestant.join(_GROUP)
    connection = await asyncpg.connect(stage.contestant.addresses.postgres)
    try:
        await connection.execute(_TABLES)
        yield connection
    finally:
        await connection.close()


async def publish(stage: Stage, *, count: int) -> Figures:
    """Insert a row a transaction: alone, and with a message; who knows no transactions sends it after the commit."""
    made = messages(SMALL_BYTES)
    async with _application(stage) as connection:

        async def insert() -> None:
            async with connection.transaction():
                await connection.execute(_INSERT.format("quiet"), "text")

        async def insert_and_publish() -> None:
            await _insert_and_publish(stage, connection, next(made))

        return {
            "alone": await _median_seconds(insert, count),
            "with a message": await _median_seconds(insert_and_publish, count),
        }


async def _insert_and_publish(stage: Stage, connection: Any, message: Message) -> None:
    contestant = stage.contestant
    async with connection.transaction():
        await connection.execute(_INSERT.format("quiet"), "text")
        if isinstance(contestant, PgchannelsApi):
            await contestant.layer.publish(_GROUP, message, connection=connection)
    if isinstance(contestant, ChannelsLayer):
        await contestant.layer.group_send(_GROUP, message)


async def watch(stage: Stage, *, count: int) -> Figures:
    """Insert rows into a table, and into one whose changes are published."""
    async with _application(stage) as connection:
        await connection.execute("SELECT pgchannels.publish_row_changes('public.watched', 'orders')")
        figures = {}
        for rows in (1, _MANY_ROWS):
            for table in ("quiet", "watched"):

                async def insert(table: str = table, rows: int = rows) -> None:
                    await connection.execute(_INSERT_MANY.format(table), "x" * SMALL_BYTES, rows)

                figures[f"{table} {rows}"] = await _median_seconds(insert, max(5, count // rows))
        return figures


async def beside_open(stage: Stage, *, count: int) -> Figures:
    """Publish alone, and while a transaction that has published to the same topic stays open."""
    made, publish = messages(SMALL_BYTES), stage.contestant.publish
    async with _application(stage) as connection:
        assert isinstance(stage.contestant, PgchannelsApi)
        alone = await _median_seconds(lambda: publish(_GROUP, next(made)), count)
        async with connection.transaction():
            await stage.contestant.layer.publish(_GROUP, next(made), connection=connection)
            beside = await _median_seconds(lambda: publish(_GROUP, next(made)), count)
        return {"alone": alone, "beside": beside}


async def _median_seconds(call: Callable[[], Awaitable[object]], count: int) -> float:
    seconds = []
    for _ in range(min(_WARM_UP, count)):
        await call()
    for _ in range(count):
        started = time.perf_counter()
        await call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


async def _measure_publish(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("transactions.publish", count=scale.messages)


async def _measure_watch(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("transactions.watch", count=scale.messages)


async def _measure_beside_open(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("transactions.beside_open", count=scale.messages)


WORKS: Final = (
    Work(
        name="transaction",
        title="a transaction that inserts a row, alone and with a message (Redis: after its commit)",
        contestants=(_OURS, PUBSUB),
        measure=_measure_publish,
        figures={"alone": Figure("alone", "s"), "with a message": Figure("with a message", "s")},
    ),
    Work(
        name="trigger",
        title="rows inserted in one transaction, without and with a trigger that publishes them",
        contestants=(_OURS,),
        measure=_measure_watch,
        figures={
            "quiet 1": Figure("1 row", "s"),
            "watched 1": Figure("1 row, published", "s"),
            "quiet 1000": Figure("1,000 rows", "s"),
            "watched 1000": Figure("1,000 rows, published", "s"),
        },
    ),
    Work(
        name="open-transaction",
        title="publish beside an open transaction that has published to the same topic",
        contestants=(_OURS,),
        measure=_measure_beside_open,
        figures={"alone": Figure("alone", "s"), "beside": Figure("beside it", "s")},
        goals=(Goal("beside", None, at_most=1.2, of=_OURS, against_figure="alone"),),
    ),
)
