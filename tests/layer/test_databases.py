"""The ways to name the database."""

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from pgchannels import MessageLayer
from pgchannels.database.url import DatabaseTarget
from tests.support.connections import fetchval
from tests.support.waiting import until, within


async def require_delivery(target: DatabaseTarget) -> None:
    """A message goes through a layer on this database."""
    async with MessageLayer(target) as layer, layer.subscribe("room") as subscription:
        await layer.publish_many([("room", 1), ("room", b"x" * 10_000)])
        assert (await within(anext(subscription))).payload == 1
        assert (await within(anext(subscription))).payload == b"x" * 10_000


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"])
async def test_url_may_name_any_driver(database_url: str, scheme: str) -> None:
    await require_delivery(database_url.replace("postgresql", scheme, 1))


async def test_url_may_be_sqlalchemys(database_url: str) -> None:
    await require_delivery(make_url(database_url))


@pytest.mark.parametrize("options", [{}, {"pool_size": 1, "max_overflow": 0}, {"poolclass": NullPool}])
async def test_engines_settings_are_used_and_its_pool_is_left_alone(
    database_url: str, options: dict[str, object]
) -> None:
    engine = create_async_engine(
        make_url(database_url).set(drivername="postgresql+asyncpg"),
        connect_args={"server_settings": {"application_name": "mine"}},
        **options,
    )
    async with engine.connect() as connection:  # all that the smallest of the pools has
        await require_delivery(engine)
        async with MessageLayer(engine):
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mine' AND datname = current_database()"
            )
            assert (await connection.exec_driver_sql(query)).scalar_one() == 1 + 3
    await engine.dispose()


async def test_layer_that_sends_nothing_has_no_transaction_open(database_url: str) -> None:
    query = (
        "SELECT array_agg(state) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )

    async def is_idle() -> bool:
        return await fetchval(database_url, query) == ["idle"] * 3

    async with MessageLayer(database_url) as layer, layer.subscribe("room"):
        await until(is_idle)
