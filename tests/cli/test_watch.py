"""`pgchannels watch` and `unwatch`."""

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from pgchannels import MessageLayer
from pgchannels.cli import main
from tests.support.waiting import until, within

MAKE = (
    "CREATE TABLE orders (id int PRIMARY KEY, customer_id int, notes text); CREATE SCHEMA shop; CREATE TABLE shop.it ()"
)


@pytest.fixture
async def tables(connection: "asyncpg.Connection[asyncpg.Record]") -> "asyncpg.Connection[asyncpg.Record]":
    """A connection to a database with tables."""
    await connection.execute(MAKE)
    return connection


async def test_watch_publishes_changes_until_unwatch(
    tables: "asyncpg.Connection[asyncpg.Record]",
    layer: MessageLayer,
    owner_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--url", owner_url, "--topic", "orders.{customer_id}", "--without", "notes"]
    for _ in range(2):  # again, and nothing is published twice
        assert await asyncio.to_thread(main, ["watch", "orders", *options]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Changes of orders are published to orders.{customer_id}."
    async with layer.subscribe("orders.7") as subscription:
        await tables.execute("INSERT INTO orders VALUES (1, 7, 'secret')")
        assert (await within(anext(subscription))).payload["new"] == {"id": 1, "customer_id": 7}
        assert await asyncio.to_thread(main, ["unwatch", "orders", "--url", owner_url]) == 0
        await tables.execute("DELETE FROM orders")
        await layer.publish("orders.7", "last")
        assert (await within(anext(subscription))).payload == "last"
    assert await tables.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'deliver'") == 0


async def test_owner_of_a_table_who_may_only_publish_watches_it(
    tables: "asyncpg.Connection[asyncpg.Record]",
    owner_url: str,
    stranger_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    role = urlsplit(stranger_url).username
    await tables.execute(f"ALTER TABLE orders OWNER TO {role}; GRANT CREATE ON SCHEMA public TO {role}")
    assert await asyncio.to_thread(main, ["upgrade", "--url", owner_url, "--grant-publish-to", str(role)]) == 0
    assert await asyncio.to_thread(main, ["watch", "orders", "--topic", "a", "--url", stranger_url]) == 0
    assert await asyncio.to_thread(main, ["unwatch", "orders", "--url", stranger_url]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Changes of orders are no longer published."


async def test_who_does_not_own_the_table_is_told_who_may_watch_it(
    tables: "asyncpg.Connection[asyncpg.Record]",
    owner_url: str,
    stranger_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    role = str(urlsplit(stranger_url).username)
    assert await asyncio.to_thread(main, ["upgrade", "--url", owner_url, "--grant-publish-to", role]) == 0
    assert await asyncio.to_thread(main, ["watch", "orders", "--topic", "a", "--url", stranger_url]) == 1
    assert "; do it as the role that owns the table" in capsys.readouterr().err


async def test_watch_lets_other_writers_pass_while_one_is_in_a_transaction(
    tables: "asyncpg.Connection[asyncpg.Record]", owner_url: str
) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted"

    async def waits() -> bool:
        return bool(await tables.fetchval(waiting))

    async def lets_pass() -> bool:
        return not await waits()

    async with tables.transaction():
        await tables.execute("INSERT INTO orders VALUES (1, 7)")
        watching = asyncio.create_task(
            asyncio.to_thread(main, ["watch", "orders", "--topic", "orders", "--url", owner_url])
        )
        await until(waits)
        await until(lets_pass)
        assert not watching.done()
    assert await within(watching) == 0


async def test_watch_publishes_truncate_where_the_topic_names_no_column(
    tables: "asyncpg.Connection[asyncpg.Record]", layer: MessageLayer, owner_url: str
) -> None:
    arguments = ["watch", "shop.it", "--url", owner_url, "--topic", "it", "--name", "odd 'name", "--prefix", "asgi"]
    assert await asyncio.to_thread(main, arguments) == 0
    async with layer.subscribe("it") as subscription:
        await tables.execute("TRUNCATE shop.it")
        assert (await within(anext(subscription))).payload["operation"] == "truncate"
    assert await asyncio.to_thread(main, ["unwatch", "shop.it", "--url", owner_url, "--name", "odd 'name"]) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["watch", "nothing", "--topic", "a"], 'relation "nothing" does not exist'),
        (
            ["watch", "orders", "--topic", "a.{nothing}", "--without", "no%thing"],
            'orders has no column nothing, "no%thing". Its columns are: id, customer_id, notes.',
        ),
        (["watch", "orders", "--topic", "a b"], "'a b' is no topic"),
        (["watch", "orders", "--topic", "a", "--prefix", "a:b"], "'a:b'"),
        (["unwatch", "orders"], "orders has no trigger pgchannels_row_changes. No trigger publishes its changes."),
        (
            ["watch", "orders", "--topic", "a", "--schema", "elsewhere"],
            "no pgchannels tables in the schema 'elsewhere'",
        ),
    ],
)
async def test_what_cannot_be_watched_is_said(
    tables: "asyncpg.Connection[asyncpg.Record]",
    owner_url: str,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    assert await asyncio.to_thread(main, [*arguments, "--url", owner_url]) == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", [["watch", "orders", "--topic", "orders"], ["unwatch", "orders"]])
def test_database_without_tables_is_told(
    command: list[str], empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--url", empty_database_url]) == 1
    assert (
        "there are no pgchannels tables in the schema 'pgchannels': run `pgchannels upgrade`" in capsys.readouterr().err
    )


def test_watch_without_a_database_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "orders", "--topic", "a"]) == 1
    assert "--url postgresql://" in capsys.readouterr().err
