"""Every kind of connection that an application may have, each with a commit and a rollback."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, cast

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from pgchannels import ConfigurationError, MessageLayer
from pgchannels.database import migrations
from tests.support.waiting import within


class Abandoned(Exception):
    """Ends a transaction without a commit."""


def dialect(url: str, driver: str) -> str:
    """The URL for SQLAlchemy with a driver."""
    return make_url(url).set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)


@asynccontextmanager
async def of_asyncpg(url: str) -> AsyncIterator[Any]:
    """A transaction of asyncpg."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def of_asyncpg_pool(url: str) -> AsyncIterator[Any]:
    """A transaction on a connection of a pool of asyncpg."""
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection


@asynccontextmanager
async def of_psycopg(url: str) -> AsyncIterator[Any]:
    """A transaction of psycopg, with rows of another kind than usual."""
    async with await psycopg.AsyncConnection.connect(url, row_factory=cast(Any, dict_row)) as connection:
        yield connection


@asynccontextmanager
async def of_async_connection(url: str, driver: str = "asyncpg") -> AsyncIterator[Any]:
    """A transaction of an AsyncConnection."""
    engine = create_async_engine(dialect(url, driver))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def of_async_session(url: str, driver: str = "asyncpg") -> AsyncIterator[Any]:
    """A transaction of an AsyncSession."""
    engine = create_async_engine(dialect(url, driver))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


@asynccontextmanager
async def of_scoped_session(url: str) -> AsyncIterator[Any]:
    """A transaction of a session that belongs to a task."""
    engine = create_async_engine(dialect(url, "asyncpg"))
    scoped = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    try:
        async with scoped.begin():
            yield scoped
    finally:
        await scoped.remove()
        await engine.dispose()


ASYNCHRONOUS: Final[dict[str, Callable[[str], Any]]] = {
    "asyncpg": of_asyncpg,
    "asyncpg pool": of_asyncpg_pool,
    "psycopg": of_psycopg,
    "AsyncConnection": of_async_connection,
    "AsyncConnection of psycopg": lambda url: of_async_connection(url, "psycopg"),
    "AsyncSession": of_async_session,
    "AsyncSession of psycopg": lambda url: of_async_session(url, "psycopg"),
    "async_scoped_session": of_scoped_session,
}


@contextmanager
def of_blocking_psycopg(url: str) -> Iterator[Any]:
    """A transaction of psycopg."""
    with psycopg.connect(url) as connection:
        yield connection


@contextmanager
def of_connection(url: str) -> Iterator[Any]:
    """A transaction of a Connection."""
    engine = create_engine(dialect(url, "psycopg"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def of_session(url: str) -> Iterator[Any]:
    """A transaction of a Session."""
    engine = create_engine(dialect(url, "psycopg"))
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


BLOCKING: Final[dict[str, Callable[[str], Any]]] = {
    "psycopg": of_blocking_psycopg,
    "Connection": of_connection,
    "Session": of_session,
}


async def received(layer: MessageLayer, send: Callable[[], Awaitable[object]]) -> list[Any]:
    """What arrives in `room` and in the queue `jobs` from what is sent."""
    async with layer.subscribe("room") as subscription:
        await send()
        await layer.publish("room", "last")
        await layer.send("jobs", "last")
        payloads = [(await within(anext(subscription))).payload]
        while payloads[-1] != "last":
            payloads.append((await within(anext(subscription))).payload)
        payloads.append(await within(layer.receive("jobs")))
        while payloads[-1] != "last":
            payloads.append(await within(layer.receive("jobs")))
    return payloads


async def publish(layer: MessageLayer, connection: Any) -> None:
    """Publish in each way."""
    payloads = [await layer.publish("room", 1, connection=connection, headers={"a": "b"}, key="once", expiry=30)]
    payloads += [await layer.publish_many([("room", 2), ("room", b"\0\xff")], connection=connection)]
    payloads += [await layer.send("jobs", 3, connection=connection)]
    assert payloads == [None] * 3  # no position is known before the commit


@pytest.mark.parametrize("kind", ASYNCHRONOUS)
async def test_message_is_delivered_if_and_only_if_the_transaction_commits(
    layer: MessageLayer, database_url: str, kind: str
) -> None:
    async def committed() -> None:
        async with ASYNCHRONOUS[kind](database_url) as connection:
            await publish(layer, connection)

    async def rolled_back() -> None:
        with suppress(Abandoned):
            async with ASYNCHRONOUS[kind](database_url) as connection:
                await publish(layer, connection)
                raise Abandoned

    assert await received(layer, rolled_back) == ["last", "last"]
    assert await received(layer, committed) == [1, 2, b"\0\xff", "last", 3, "last"]


@pytest.mark.parametrize("kind", BLOCKING)
async def test_message_from_a_thread_is_delivered_if_and_only_if_the_transaction_commits(
    layer: MessageLayer, database_url: str, kind: str
) -> None:
    def send(error: Exception | None) -> None:
        with BLOCKING[kind](database_url) as connection:
            layer.sync.publish("room", 1, connection=connection, headers={"a": "b"}, key="once", expiry=30)
            assert layer.sync.publish_many([("room", 2), ("room", b"\0\xff")], connection=connection) is None
            layer.sync.send("jobs", 3, connection=connection)
            if error:
                raise error

    async def rolled_back() -> None:
        with pytest.raises(Abandoned):
            await asyncio.to_thread(send, Abandoned())

    assert await received(layer, rolled_back) == ["last", "last"]
    assert await received(layer, lambda: asyncio.to_thread(send, None)) == [1, 2, b"\0\xff", "last", 3, "last"]


async def test_connection_outside_a_transaction_delivers_at_once(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", "at once", connection=connection)
        assert (await within(anext(subscription))).payload == "at once"


async def test_layer_that_is_open_nowhere_publishes_in_a_transaction(
    layer: MessageLayer, database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    sending = MessageLayer(database_url)
    async with layer.subscribe("room") as subscription:
        async with connection.transaction():
            await sending.publish("room", 1, connection=connection)
        assert (await within(anext(subscription))).payload == 1
    await sending.close()


async def test_connection_to_another_database_is_refused_by_name_and_goes_on(
    layer: MessageLayer, empty_database_url: str
) -> None:
    await migrations.upgrade(empty_database_url)
    async with of_asyncpg(empty_database_url) as connection:
        name = await connection.fetchval("SELECT current_database()")
        with pytest.raises(
            ConfigurationError, match=f"the connection is to the database '{name}', and the layer's is "
        ):
            await layer.publish("room", 1, connection=connection)
        assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 0


async def test_database_that_was_created_anew_is_the_layers_own(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", 1, connection=connection)
        await connection.execute("UPDATE pgchannels.log SET database = gen_random_uuid()")
        await layer.publish("room", 2, connection=connection)
        assert [(await within(anext(subscription))).payload for _ in range(2)] == [1, 2]


async def test_connection_to_a_database_without_the_tables_says_so(
    layer: MessageLayer, empty_database_url: str
) -> None:
    async with of_asyncpg_pool_without_transaction(empty_database_url) as connection:
        with pytest.raises(ConfigurationError, match=r"has no pgchannels tables in the schema 'pgchannels'"):
            await layer.publish("room", 1, connection=connection)


@asynccontextmanager
async def of_asyncpg_pool_without_transaction(url: str) -> AsyncIterator[Any]:
    """A connection of asyncpg."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def test_connection_of_the_other_kind_is_refused_with_the_way_out(layer: MessageLayer, database_url: str) -> None:
    with of_connection(database_url) as blocking, pytest.raises(ConfigurationError, match=r"`layer\.sync`"):
        await layer.publish("room", 1, connection=blocking)
    async with of_async_connection(database_url) as asynchronous:
        with pytest.raises(ConfigurationError, match="connection must be a Connection or Session of SQLAlchemy"):
            await asyncio.to_thread(layer.sync.publish, "room", 1, connection=asynchronous)
