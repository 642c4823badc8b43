"""What others do to their own transactions: nobody else may wait, lose a message, or fail because of it."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, TypeAlias

import asyncpg
import psycopg
import pytest

from pgchannels import MessageLayer, Subscription
from pgchannels.database import migrations
from pgchannels.embedded import EmbeddedServer
from tests.support.log import let_pass, rotate
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def other(owner_url: str) -> AsyncIterator[Connection]:
    """A second connection of the owner."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def subscription(layer: MessageLayer) -> AsyncIterator[Subscription]:
    """A subscription to `room`."""
    async with layer.subscribe("room") as subscription:
        yield subscription


async def payloads(subscription: Subscription, count: int) -> list[Any]:
    """The next messages."""
    return [(await within(anext(subscription))).payload for _ in range(count)]


GOOD: Any = {
    "addresses": ["topic:asgi:room"],
    "channels": None,
    "payloads": [b"\x061"],
    "capacities": None,
    "keys": None,
    "expiries": [60.0],
}
BAD: list[dict[str, Any]] = [
    *({"expiries": [value]} for value in (float("nan"), float("inf"), -0.0005, 0.0, 1e13, -1e13, None)),
    *(
        {"addresses": [value]}
        for value in ("topic:asgi:" + "a" * 200, "topic:asgi:", "topic::a", "topic:asgi", "é", None)
    ),
    *({"addresses": [value], "channels": ["a!b"]} for value in ("queue:asgi:jobs", "topic:asgi:a b", "other:asgi:a")),
    *({"channels": [value]} for value in ("a" * 12_000, "a b", "")),
    *({"keys": [value]} for value in ("", "a" * 201)),
    {"addresses": ["node:asgi:x"]},
    {"addresses": ["queue:asgi:jobs"], "keys": ["a"]},
    {"capacities": [5]},
    {"payloads": [None]},
    {"payloads": None},
]
ENQUEUE = "SELECT pgchannels.enqueue(NULL, $1, $2, $3, $4, $5, $6)"


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad!s:.60}")
async def test_what_cannot_be_delivered_does_not_get_into_the_outbox(
    connection: Connection, bad: dict[str, Any]
) -> None:
    await connection.fetch(ENQUEUE, *GOOD.values())
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot deliver this message"):
        await connection.fetch(ENQUEUE, *(GOOD | bad).values())


async def test_array_that_does_not_begin_with_1_hides_nothing(connection: Connection) -> None:
    for addresses, channels in (
        ("[2:2]={node:asgi:x}", "{x}"),
        ("{node:asgi:x}", "[2:2]={x}"),
        ("{{node:asgi:x}}", "{x}"),
    ):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot deliver this message"):
            await connection.execute(
                f"SELECT pgchannels.enqueue(NULL, '{addresses}', '{channels}', '{{a}}', NULL, NULL, '{{60}}')"
            )


async def test_transaction_that_waits_in_its_commit_holds_no_topic(
    layer: MessageLayer, connection: Connection, other: Connection, subscription: Subscription
) -> None:
    await connection.execute(
        """
        CREATE TABLE parent (id int PRIMARY KEY);
        CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
        INSERT INTO parent VALUES (1);
        """
    )
    transaction, holding = connection.transaction(), other.transaction()
    await transaction.start()
    await layer.publish("room", "waiting", connection=connection)
    await connection.execute("INSERT INTO child VALUES (1)")
    await holding.start()
    await other.execute("DELETE FROM parent")
    committing = asyncio.create_task(transaction.commit())
    pid = connection.get_server_pid()
    await until(lambda: waits_for_a_lock(other, pid))
    await within(layer.publish("room", "free"))  # while the foreign key waits
    await layer.publish("room", "of the other", connection=other)
    await holding.rollback()
    await within(committing)
    assert await payloads(subscription, 2) == ["free", "waiting"]


async def waits_for_a_lock(connection: Connection, pid: int) -> bool:
    """Whether a session waits."""
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_get_activity($1)"
    return bool(await connection.fetchval(query, pid))


async def test_constraints_that_are_immediate_hold_no_topic_before_the_commit(
    layer: MessageLayer, connection: Connection, subscription: Subscription
) -> None:
    async with connection.transaction():
        await layer.publish("room", 1, connection=connection)
        for number in (2, 3):
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            await layer.publish("room", number, connection=connection)
        await within(layer.publish("room", "free"))
        await let_pass(connection, 60)
    assert await payloads(subscription, 4) == ["free", 1, 2, 3]


WAITING = {
    "a cursor that is held": "DECLARE held CURSOR WITH HOLD FOR SELECT pg_advisory_xact_lock(5)",
    "a trigger that makes constraints immediate": "INSERT INTO told DEFAULT VALUES",
}


@pytest.mark.parametrize("waiting", WAITING.values(), ids=list(WAITING))
async def test_what_waits_in_the_commit_behind_our_trigger_holds_no_topic(
    layer: MessageLayer, connection: Connection, other: Connection, subscription: Subscription, waiting: str
) -> None:
    await connection.execute(
        """
        CREATE TABLE told ();
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN SET CONSTRAINTS ALL IMMEDIATE; PERFORM pg_advisory_xact_lock(5); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER waiting AFTER INSERT ON told DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait();
        """
    )
    await other.execute("SELECT pg_advisory_lock(5)")
    transaction = connection.transaction()
    await transaction.start()
    await layer.publish("room", "waiting", connection=connection)
    await connection.execute(waiting)
    committing = asyncio.create_task(transaction.commit())
    pid = connection.get_server_pid()
    await until(lambda: waits_for_a_lock(other, pid))
    await within(layer.publish("room", "free"))
    await layer.publish("room", "of the other", connection=other)
    await other.execute("SELECT pg_advisory_unlock(5)")
    await within(committing)
    assert await payloads(subscription, 3) == ["free", "of the other", "waiting"]


async def test_deferred_triggers_that_publish_in_opposite_orders_never_deadlock(
    layer: MessageLayer, connection: Connection, owner_url: str
) -> None:
    """Also if a deferred trigger fires the one that publishes, so that the first message is delivered already."""
    rounds = 30
    await connection.execute(
        """
        CREATE TABLE first (topic text);
        CREATE TABLE second (topic text);
        CREATE FUNCTION go_on() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO second VALUES (NEW.topic); RETURN NULL; END';
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pgchannels.publish(NEW.topic, ''"second"''); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER a AFTER INSERT ON first DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION go_on();
        CREATE CONSTRAINT TRIGGER b AFTER INSERT ON second DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION tell();
        """
    )

    async def play(one: str, another: str) -> None:
        publishing = await asyncpg.connect(owner_url)
        for _ in range(rounds):
            async with publishing.transaction():
                await layer.publish(one, "first", connection=publishing)
                await publishing.execute("INSERT INTO first VALUES ($1)", another)
        await publishing.close()

    async with layer.subscribe("a", "b") as subscription:
        await asyncio.gather(play("a", "b"), play("b", "a"))
        received = await payloads(subscription, 4 * rounds)
    assert sorted(received) == ["first"] * 2 * rounds + ["second"] * 2 * rounds


async def test_immediate_constraints_in_opposite_orders_never_deadlock(layer: MessageLayer, database_url: str) -> None:
    async def play(topics: list[str]) -> None:
        connection = await asyncpg.connect(database_url)
        for _ in range(100):
            async with connection.transaction():
                await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                for topic in topics:
                    await layer.publish(topic, 1, connection=connection)
        await connection.close()

    await asyncio.gather(play(["a", "b", "c", "d"]), play(["d", "c", "b", "a"]))


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
@pytest.mark.parametrize("meddling", ["SET CONSTRAINTS ALL IMMEDIATE", "RESET ALL", "SET CONSTRAINTS ALL DEFERRED"])
async def test_transaction_that_changes_settings_is_delivered_once(
    layer: MessageLayer, connection: Connection, subscription: Subscription, isolation: Any, meddling: str
) -> None:
    async with connection.transaction(isolation=isolation):
        for number in range(3):
            await layer.publish("room", number, connection=connection)
            await connection.execute(meddling)
    await layer.publish("end", 0, connection=connection)
    assert await payloads(subscription, 3) == [0, 1, 2]
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 0


async def test_message_of_a_transaction_that_fakes_our_setting_is_delivered_after_all(
    layer: MessageLayer, connection: Connection, subscription: Subscription
) -> None:
    async with connection.transaction():
        name = "'pgchannels.transaction_' || 'pgchannels.outbox'::regclass::oid"
        await connection.execute(f"SELECT set_config({name}, pg_current_xact_id()::text, true)")
        await layer.publish("room", "hidden", connection=connection)
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 1
    await rotate(connection)
    node_of(layer).beat_now()
    assert await payloads(subscription, 1) == ["hidden"]
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 0


async def test_what_cannot_be_delivered_fails_nobody_elses_commit(
    layer: MessageLayer, connection: Connection, subscription: Subscription
) -> None:
    await connection.execute(
        """
        INSERT INTO pgchannels.outbox (transaction, is_first, address, payload, expiry_seconds)
        VALUES (1, false, 'topic:asgi:room', 'x', 'NaN'), (2, false, 'topic:asgi:room', '\\x0631', 60);
        INSERT INTO pgchannels.undelivered VALUES (1), (2);
        """
    )
    warnings: list[str] = []
    connection.add_log_listener(lambda _, message: warnings.append(str(message.message)))
    async with connection.transaction():
        await layer.publish("room", 2, connection=connection)
    assert await payloads(subscription, 2) == [1, 2]
    assert len(warnings) == 1
    assert warnings[0].startswith("pgchannels dropped the messages of a transaction: ")
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 0


async def test_transaction_that_has_published_cannot_be_prepared() -> None:
    with EmbeddedServer(settings={"max_prepared_transactions": "2"}) as server:
        await migrations.upgrade(server.url())
        connection = await asyncpg.connect(server.url())
        for isolation in ("READ COMMITTED", "REPEATABLE READ"):
            await connection.execute(f"BEGIN ISOLATION LEVEL {isolation}; SELECT pgchannels.publish('nobody', '1')")
            with pytest.raises(asyncpg.FeatureNotSupportedError, match="NOTIFY"):
                await connection.execute("PREPARE TRANSACTION 'a'")
        await connection.close()


async def test_numbers_beyond_those_of_python_and_json_arrive_exactly(
    connection: Connection, subscription: Subscription
) -> None:
    await connection.execute(
        """
        CREATE TABLE numbers (a numeric, b numeric, c float8, d bigint);
        SELECT pgchannels.publish_row_changes('numbers', 'room');
        INSERT INTO numbers VALUES (12345678901234567890123, 1e400 + 0.5, 0.1, -9223372036854775808);
        """
    )
    [change] = await payloads(subscription, 1)
    assert change["new"] == {
        "a": Decimal(12345678901234567890123),
        "b": Decimal("1" + "0" * 400 + ".5"),
        "c": 0.1,
        "d": -(2**63),
    }


async def test_row_reads_the_same_whatever_the_settings_of_its_writer(
    connection: Connection, subscription: Subscription
) -> None:
    await connection.execute(
        """
        CREATE TABLE odd (a float8, b interval, c bytea, d tstzrange, e date);
        SELECT pgchannels.publish_row_changes('odd', 'room');
        """
    )
    row = "INSERT INTO odd VALUES (1.1, '1 day 2 h', '\\x00ff', '[2026-02-01 00:00+00,)', '2026-02-01')"
    await connection.execute(row)
    for setting in (
        "extra_float_digits = -15",
        "intervalstyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "datestyle = 'German'",
        "timezone = 'Asia/Kathmandu'",
    ):
        await connection.execute(f"SET {setting}")
    await connection.execute(row)
    first, second = await payloads(subscription, 2)
    assert first["new"] == second["new"]


@pytest.mark.parametrize(
    ("call", "says", "hint"),
    [
        ("publish_row_changes(NULL, 'room')", "cannot be NULL", "For example"),
        ("publish_row_changes('odd', NULL)", "cannot be NULL", "For example"),
        ("publish_row_changes('odd', 'room', '{NULL}')", "cannot be NULL", "For example"),
        ("publish_row_changes('odd', 'room', name => NULL)", "cannot be NULL", "For example"),
        ("publish_row_changes('odd', 'room', name => '')", "the name of the trigger is empty", "at most 53"),
        ("publish_row_changes('odd', 'room', name => repeat('a', 54))", "53 are the most", "a shorter one"),
        ("publish_row_changes('odd', 'room', name => repeat('ä', 27))", "54 bytes, 53 are the most", "a shorter one"),
        ("publish_row_changes('pgchannels.outbox', 'room')", "belongs to pgchannels", "your own"),
        ("publish_row_changes('pgchannels.message', 'room')", "belongs to pgchannels", "your own"),
        ("publish_row_changes('odd', 'room.{nothing}')", "odd has no column nothing", 'columns are: id, "A b"'),
        ("publish_row_changes('odd', 'room', '{nothing}')", "odd has no column nothing", 'columns are: id, "A b"'),
        ("publish_row_changes('odd', 'a room')", "is no topic", "1 to 99"),
        ("publish_row_changes('shown', 'room')", "shown is no table", "those that it shows"),
        ("publish_row_changes('pg_class', 'room')", "pg_class is no table", "your own"),
        ("publish_row_changes('part', 'room')", "it is a partition", "the partitioned table"),
        ("stop_row_changes('part')", "part is a partition", "the partitioned table"),
        ("stop_row_changes('odd')", "odd has no trigger pgchannels_row_changes", "by the trigger live"),
        ("stop_row_changes('quiet')", "quiet has no trigger", "No trigger publishes"),
        ("stop_row_changes(NULL)", "cannot be NULL", "For example"),
        ("stop_row_changes('odd', NULL)", "cannot be NULL", "For example"),
    ],
)
async def test_what_cannot_be_watched_is_refused_with_a_hint(
    connection: Connection, call: str, says: str, hint: str
) -> None:
    await connection.execute(
        """
        CREATE TABLE quiet ();
        CREATE VIEW shown AS SELECT FROM quiet;
        CREATE TABLE whole (id int) PARTITION BY LIST (id);
        CREATE TABLE part PARTITION OF whole DEFAULT;
        SELECT pgchannels.publish_row_changes('whole', 'room');
        CREATE TABLE odd (id int, "A b" int);
        CREATE TRIGGER live AFTER INSERT ON odd
        FOR EACH ROW EXECUTE FUNCTION pgchannels.publish_row_change('room');
        """
    )
    with pytest.raises(asyncpg.PostgresError, match=says) as refused:
        await connection.execute(f"SELECT pgchannels.{call}")
    assert hint in str(refused.value.hint)


async def test_columns_to_leave_out_may_come_in_any_array(connection: Connection, subscription: Subscription) -> None:
    await connection.execute(
        """
        CREATE TABLE odd (id int PRIMARY KEY, secret int, hidden int);
        SELECT pgchannels.publish_row_changes('odd', 'room', ARRAY[['secret'], ['hidden']]);
        INSERT INTO odd VALUES (1, 2, 3);
        """
    )
    [change] = await payloads(subscription, 1)
    assert change["new"] == {"id": 1}


async def test_longest_name_of_a_trigger_makes_two_triggers(connection: Connection, subscription: Subscription) -> None:
    name = "a" * 53
    await connection.execute(
        f"""
        CREATE TABLE odd (id int PRIMARY KEY, secret int);
        SELECT pgchannels.publish_row_changes('odd', 'room', '{{id}}', name => '{name}');
        INSERT INTO odd VALUES (1, 2);
        TRUNCATE odd;
        SELECT pgchannels.stop_row_changes('odd', '{name}');
        INSERT INTO odd VALUES (2, 2);
        """
    )
    inserted, emptied = await payloads(subscription, 2)
    assert (inserted["key"], inserted["new"], emptied["operation"]) == (None, {"secret": 2}, "truncate")


async def test_value_in_a_topic_is_not_read_as_another_column(connection: Connection) -> None:
    topic = await connection.fetchval("""SELECT pgchannels.topic_of_row('w.{a}{b}', '{"a": "{b}", "b": 1}', 't')""")
    assert topic == "w.{b}1"


async def test_cursors_that_an_application_has_chosen_are_not_ours(
    layer: MessageLayer, database_url: str, subscription: Subscription
) -> None:
    for factory in (psycopg.AsyncRawCursor, psycopg.AsyncClientCursor, psycopg.AsyncServerCursor):
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            if factory is not psycopg.AsyncServerCursor:
                connection.cursor_factory = factory  # type: ignore[assignment]
            await layer.publish("room", factory.__name__, connection=connection)
    assert await payloads(subscription, 3) == ["AsyncRawCursor", "AsyncClientCursor", "AsyncServerCursor"]


@pytest.mark.parametrize("isolation", ["read_committed", "serializable"])
async def test_transaction_may_publish_in_two_schemas(owner_url: str, connection: Connection, isolation: Any) -> None:
    await migrations.upgrade(owner_url, schema="second")
    one, two = MessageLayer(owner_url), MessageLayer(owner_url, schema="second")
    async with one, two, one.subscribe("room") as here, two.subscribe("room") as there:
        async with connection.transaction(isolation=isolation):
            for number in range(2):
                await one.publish("room", number, connection=connection)
                await two.publish("room", number, connection=connection)
        assert await payloads(here, 2) == await payloads(there, 2) == [0, 1]


@pytest.mark.parametrize("isolation", ["read_committed", "serializable"])
async def test_publisher_does_not_see_the_names_that_nodes_listen_on(
    layer: MessageLayer, connection: Connection, subscription: Subscription, isolation: Any
) -> None:
    told: list[str] = []
    connection.add_log_listener(lambda _, message: told.append(str(message.message)))
    await connection.execute("SET client_min_messages = debug5; SET trace_notify = on")
    async with connection.transaction(isolation=isolation):
        await connection.execute("SELECT pgchannels.publish('room', '1')")
    assert await payloads(subscription, 1) == [1]
    assert told
    assert not any(str(node_of(layer).identity.id) in text for text in told)
