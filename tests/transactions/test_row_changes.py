"""The trigger function: a message for each change of a row, as it commits."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer, Subscription
from tests.support.waiting import within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

MAKE = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (
    shop int, id int, customer_id int, notes text, at timestamptz, tags jsonb DEFAULT '{"$uuid": "not one"}',
    PRIMARY KEY (id, shop)
);
"""
TRIGGER = """
CREATE TRIGGER live AFTER INSERT OR UPDATE OR DELETE ON shop.orders
FOR EACH ROW EXECUTE FUNCTION pgchannels.publish_row_change({arguments})
"""


@pytest.fixture
async def orders(connection: Connection) -> Connection:
    """A connection to a database with a table."""
    await connection.execute(MAKE)
    await connection.execute("SET timezone = 'Asia/Kathmandu'")
    return connection


@pytest.fixture
async def subscription(layer: MessageLayer) -> AsyncIterator[Subscription]:
    """A subscription to all topics of these tests."""
    topics = ("orders", "orders.7", "orders.8", "orders.null", "emptied")
    async with layer.subscribe(*topics, capacity=5000) as subscription:
        yield subscription


async def watch(connection: Connection, *arguments: str) -> None:
    """Make the trigger."""
    await connection.execute(TRIGGER.format(arguments=", ".join(f"'{argument}'" for argument in arguments)))


async def next_change(subscription: Subscription) -> tuple[str, dict[str, Any]]:
    """The next message's topic and payload."""
    message = await within(anext(subscription))
    return message.topic, message.payload


async def test_each_change_is_published_with_what_has_changed(orders: Connection, subscription: Subscription) -> None:
    await watch(orders, "orders")
    transaction = orders.transaction()
    await transaction.start()
    await orders.execute("INSERT INTO shop.orders VALUES (1, 5, 7, 'hot', '2026-01-01 00:00+00')")
    xid, began = await orders.fetchrow("SELECT pg_current_xact_id()::text, now()") or ("", "")
    await transaction.commit()
    await orders.execute("UPDATE shop.orders SET notes = NULL, customer_id = 7")
    await orders.execute("DELETE FROM shop.orders")
    row = {
        **{"shop": 1, "id": 5, "customer_id": 7, "notes": "hot", "tags": {"$uuid": "not one"}},
        "at": "2026-01-01T00:00:00+00:00",
    }
    common = {"type": "row.change", "schema": "shop", "table": "orders", "key": {"id": 5, "shop": 1}}
    _, insert = await next_change(subscription)
    assert datetime.fromisoformat(insert.pop("time")) == began
    assert insert.pop("transaction") == xid
    assert insert == {**common, "operation": "insert", "new": row, "old": None, "changed": []}
    _, update = await next_change(subscription)
    expected = {**common, "operation": "update", "new": {**row, "notes": None}, "old": row, "changed": ["notes"]}
    assert {name: update[name] for name in expected} == expected
    _, delete = await next_change(subscription)
    assert (delete["operation"], delete["new"], delete["old"]) == ("delete", None, {**row, "notes": None})


async def test_change_that_is_rolled_back_is_not_published(orders: Connection, subscription: Subscription) -> None:
    await watch(orders, "orders")
    transaction = orders.transaction()
    await transaction.start()
    await orders.execute("INSERT INTO shop.orders VALUES (1, 5)")
    await transaction.rollback()
    await orders.execute("INSERT INTO shop.orders VALUES (1, 6)")
    assert (await next_change(subscription))[1]["key"] == {"id": 6, "shop": 1}


async def test_row_that_moves_to_another_topic_is_published_to_both(
    orders: Connection, subscription: Subscription
) -> None:
    await watch(orders, "orders.{customer_id}")
    await orders.execute("INSERT INTO shop.orders VALUES (1, 5, 7)")
    await orders.execute("UPDATE shop.orders SET customer_id = 8")
    await orders.execute("UPDATE shop.orders SET customer_id = NULL")
    came = [await next_change(subscription) for _ in range(5)]
    assert [topic for topic, _ in came] == ["orders.7", "orders.7", "orders.8", "orders.8", "orders.null"]
    assert came[1][1] == came[2][1]


async def test_columns_are_left_out_of_rows_and_of_what_has_changed(
    orders: Connection, subscription: Subscription
) -> None:
    await watch(orders, "orders", "without=notes", "without=at", "prefix=asgi")
    await orders.execute("INSERT INTO shop.orders VALUES (1, 5, 7, 'secret', now())")
    await orders.execute("UPDATE shop.orders SET notes = 'other', customer_id = 8")
    for _ in range(2):
        _, change = await next_change(subscription)
        assert "notes" not in json.dumps(change)
        assert change["new"].keys() == {"shop", "id", "customer_id", "tags"}
    assert change["changed"] == ["customer_id"]


async def test_truncate_is_published_as_such(orders: Connection, subscription: Subscription) -> None:
    await orders.execute(
        """
        CREATE TRIGGER emptied AFTER TRUNCATE ON shop.orders
        FOR EACH STATEMENT EXECUTE FUNCTION pgchannels.publish_row_change('emptied', 'without=notes')
        """
    )
    await orders.execute("TRUNCATE shop.orders")
    topic, change = await next_change(subscription)
    assert (topic, change["operation"], change["table"]) == ("emptied", "truncate", "orders")
    assert (change["key"], change["new"], change["old"], change["changed"]) == (None, None, None, [])


async def test_thousand_rows_and_a_large_one_arrive_in_order(orders: Connection, subscription: Subscription) -> None:
    await watch(orders, "orders")
    await orders.execute("INSERT INTO shop.orders SELECT 1, n, 7 FROM generate_series(1, 1000) AS n")
    await orders.execute("INSERT INTO shop.orders SELECT 1, 1001, 7, repeat('a', 1000000)")
    keys = [(await next_change(subscription))[1]["key"]["id"] for _ in range(1000)]
    assert keys == list(range(1, 1001))
    assert len((await next_change(subscription))[1]["new"]["notes"]) == 1_000_000


async def test_partition_is_published_as_the_table_that_it_is_part_of(
    connection: Connection, subscription: Subscription
) -> None:
    await connection.execute(
        """
        CREATE TABLE parted (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
        CREATE TRIGGER live AFTER INSERT ON parted
        FOR EACH ROW EXECUTE FUNCTION pgchannels.publish_row_change('orders');
        INSERT INTO parted VALUES (1, 5);
        """
    )
    _, change = await next_change(subscription)
    assert (change["table"], change["key"]) == ("parted", {"id": 1, "at": 5})


async def test_truncate_of_a_partitioned_table_is_published_once_and_that_of_a_partition_is_not(
    connection: Connection, subscription: Subscription
) -> None:
    await connection.execute(
        """
        CREATE TABLE parted (id int, at int) PARTITION BY RANGE (at);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
        SELECT pgchannels.publish_row_changes('parted', 'orders');
        """
    )
    for statement in ("TRUNCATE parted_1", "TRUNCATE parted", "INSERT INTO parted VALUES (1, 5)"):
        await connection.execute(statement)
    changes = [(await next_change(subscription))[1] for _ in range(2)]
    assert [(change["operation"], change["table"]) for change in changes] == [
        ("truncate", "parted"),
        ("insert", "parted"),
    ]


async def test_table_without_a_key_and_with_odd_names_is_published(
    connection: Connection, subscription: Subscription
) -> None:
    await connection.execute(
        """
        CREATE TABLE "Odd table" ("a b" int, "$uuid" text);
        CREATE TRIGGER live AFTER INSERT ON "Odd table" FOR EACH ROW
        EXECUTE FUNCTION pgchannels.publish_row_change('orders.{a b}', 'without=$uuid');
        INSERT INTO "Odd table" VALUES (7, 'x');
        """
    )
    topic, change = await next_change(subscription)
    assert (topic, change["table"], change["key"], change["new"]) == ("orders.7", "Odd table", None, {"a b": 7})


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        ((), "the trigger live has no topic", "Its first argument is the topic"),
        (("a room",), "'a room' is no topic", "1 to 99 ASCII letters"),
        (("orders.{nothing}",), "names the column nothing, which there is not", "columns of its table"),
        (("orders.{notes}",), "is no topic", "1 to 99 ASCII letters"),
        (("orders", "notes"), "has the argument 'notes'", "without=column"),
        (("orders", "without=nothing"), "leaves out the column nothing, which orders does not have", "that there are"),
        (("orders", "prefix=a b"), "'a b' is no prefix", "option of the layers"),
    ],
)
async def test_bad_argument_of_a_trigger_is_an_error_that_says_what_to_do(
    orders: Connection, arguments: tuple[str, ...], says: str, hint: str
) -> None:
    await watch(orders, *arguments)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await orders.execute("INSERT INTO shop.orders VALUES (1, 5, 7, 'a b')")
    assert says in str(refused.value.args[0])
    assert hint in str(refused.value.hint)


@pytest.mark.parametrize(
    "when",
    [
        "BEFORE INSERT ON shop.orders FOR EACH ROW",
        "AFTER INSERT ON shop.orders FOR EACH STATEMENT",
    ],
)
async def test_trigger_of_another_kind_is_an_error_that_says_what_to_do(orders: Connection, when: str) -> None:
    await orders.execute(f"CREATE TRIGGER live {when} EXECUTE FUNCTION pgchannels.publish_row_change('orders')")
    with pytest.raises(asyncpg.PostgresError, match="the trigger live is") as refused:
        await orders.execute("INSERT INTO shop.orders VALUES (1, 5)")
    assert "AFTER INSERT OR UPDATE OR DELETE ... FOR EACH ROW" in str(refused.value.hint)


async def test_writers_at_once_are_published_in_the_order_of_their_commits(
    orders: Connection, subscription: Subscription, owner_url: str
) -> None:
    await watch(orders, "orders")
    await orders.execute("INSERT INTO shop.orders VALUES (1, 1, 0)")

    async def count() -> None:
        connection = await asyncpg.connect(owner_url)
        for _ in range(50):
            await connection.execute("UPDATE shop.orders SET customer_id = customer_id + 1")
        await connection.close()

    await asyncio.gather(*(count() for _ in range(4)))
    assert [(await next_change(subscription))[1]["new"]["customer_id"] for _ in range(201)] == list(range(201))


async def test_virtual_generated_columns_are_left_out(orders: Connection, subscription: Subscription) -> None:
    """PostgreSQL 18 has them, and does not compute them for triggers."""
    if orders.get_server_version().major < 18:
        kind, stored = "STORED", {"twice": 2}
    else:
        kind, stored = "VIRTUAL", {}
    await orders.execute(
        f"""
        ALTER TABLE shop.orders ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) {kind};
        SELECT pgchannels.publish_row_changes('shop.orders', 'orders', '{{at,tags,notes}}');
        """
    )
    await orders.execute("INSERT INTO shop.orders (shop, id) VALUES (1, 1)")
    _, change = await next_change(subscription)
    assert change["new"] == {"shop": 1, "id": 1, "customer_id": None} | stored
    if kind == "VIRTUAL":
        with pytest.raises(asyncpg.InvalidParameterValueError, match="virtual generated column"):
            await orders.execute("SELECT pgchannels.publish_row_changes('shop.orders', 'orders.{twice}')")
