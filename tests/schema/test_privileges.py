"""Who may do what: the owner, a role of an application, a stranger."""

import asyncio
import contextlib
import itertools
from typing import Final
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from pgchannels import ConfigurationError, DatabaseRefused, MessageLayer
from pgchannels.cli import main
from pgchannels.database import migrations
from pgchannels.database.tables import VIEWS
from tests.schema.planted import CAUGHT, PATH, plant
from tests.support.gates import Gate
from tests.support.log import let_pass, rotate
from tests.support.roads import node_of
from tests.support.waiting import until, within

TABLES = (
    "log",
    "log_state",
    "durability",
    "stripe",
    "message",
    "message_0",
    "node",
    "lease",
    "subscription",
    "full_channel",
    "member",
    "outbox",
    "undelivered",
    "message_id",
    *VIEWS,
)


async def test_stranger_can_read_no_table(stranger: "asyncpg.Connection[asyncpg.Record]") -> None:
    for table in (*TABLES, *VIEWS):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.execute(f"SELECT FROM pgchannels.{table}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.execute(f"COPY pgchannels.{table} TO STDOUT")


async def test_stranger_can_call_no_function(
    stranger: "asyncpg.Connection[asyncpg.Record]", connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    functions = "FROM pg_proc WHERE pronamespace = 'pgchannels'::regnamespace"
    calls = await connection.fetch(f"SELECT proname, proargtypes::regtype[]::text[] AS types, pronargs {functions}")
    assert calls
    for name, types, count in calls:
        arguments = ", ".join(f"NULL::{kind}" for kind in types[:count])
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.fetch(f"SELECT * FROM pgchannels.{name}({arguments})")


async def test_stranger_learns_no_name_of_a_listener_anywhere(
    layer: MessageLayer,
    stranger: "asyncpg.Connection[asyncpg.Record]",
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    listener = await connection.fetchval("SELECT id::text FROM pgchannels.node")
    async with layer.subscribe("room"):
        seen = [
            await stranger.fetch(f"SELECT v::text FROM {view} AS v") for view in await views_of_the_server(stranger)
        ]
        seen += [
            await connection.fetch("SELECT query FROM pg_stat_activity")
        ]  # not even the owner, since the heartbeat
    assert not any(text and listener in text for rows in seen for (text,) in rows)
    assert await connection.fetchval(
        "SELECT count(*) FROM pgchannels.node WHERE id::text = $1", listener
    )  # it is there


@pytest.mark.parametrize("role", ["pg_monitor", "pg_read_all_stats"])
async def test_role_that_sees_every_statement_learns_no_name_of_a_listener(
    layer: MessageLayer,
    stranger: "asyncpg.Connection[asyncpg.Record]",
    connection: "asyncpg.Connection[asyncpg.Record]",
    role: str,
) -> None:
    node = node_of(layer)
    await connection.execute(f"GRANT {role} TO {await stranger.fetchval('SELECT current_user')}")
    with Gate(node.receiver, "beat") as gate:
        node._listener.reconnect()
        await within(gate.reached())  # it has just begun to listen
        seen = await stranger.fetch("SELECT query FROM pg_stat_activity WHERE datname = current_database()")
    async with layer.subscribe("room") as subscription:
        await layer.publish("room", "secret")
        assert (await within(anext(subscription))).payload == "secret"
        seen += await stranger.fetch("SELECT query FROM pg_stat_activity WHERE datname = current_database()")
    assert any("listen" in query for (query,) in seen)
    assert not any(str(node.identity.id) in query for (query,) in seen)


async def views_of_the_server(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """All views and tables of the catalog that this role may read."""
    rows = await connection.fetch(
        """
        SELECT oid::regclass::text FROM pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') AND has_table_privilege(oid, 'SELECT')
        """
    )
    return [name for (name,) in rows if name not in {"pg_shmem_allocations", "pg_backend_memory_contexts"}]


async def test_stranger_hears_nothing_and_what_it_notifies_is_heard_by_nobody(
    layer: MessageLayer, stranger: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    heard: list[object] = []
    for channel in ("room", "topic:asgi:room", "pgchannels", "%", "*"):
        await stranger.add_listener(channel, lambda *told: heard.append(told))
    async with layer.subscribe("room") as subscription:
        await stranger.execute("SELECT pg_notify('topic:asgi:room', 'm 9 9 topic:asgi:room  gQ==')")
        heard.clear()
        await layer.publish("room", "ours")
        assert (await within(anext(subscription))).payload == "ours"
    await stranger.fetchval("SELECT 1")
    assert heard == []


async def test_layer_of_a_stranger_is_refused_with_the_command_that_helps(stranger_url: str) -> None:
    with pytest.raises(DatabaseRefused, match=r"permission denied.*pgchannels upgrade --grant-to"):
        await MessageLayer(stranger_url).open()
    layer = MessageLayer(stranger_url)
    with pytest.raises(DatabaseRefused, match=r"permission denied.*pgchannels upgrade --grant-to"):
        await layer.publish("room", 1)
    await layer.close()


async def test_grant_lets_a_stranger_in(
    stranger_url: str, owner_url: str, layer: MessageLayer, capsys: pytest.CaptureFixture[str]
) -> None:
    role = stranger_url.split("//")[1].split(":")[0]
    status = await asyncio.to_thread(main, ["upgrade", "--url", owner_url, "--grant-to", role])
    assert (status, capsys.readouterr().out.splitlines()[-1]) == (0, f"The role {role!r} may use them.")
    async with layer.subscribe("room") as subscription, MessageLayer(stranger_url) as guest:
        await guest.publish("room", "let in")
        assert (await within(anext(subscription))).payload == "let in"


async def test_grant_to_a_role_that_is_not_there_says_so(owner_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = await asyncio.to_thread(main, ["upgrade", "--url", owner_url, "--grant-to", "nobody here"])
    assert status == 1
    assert 'role "nobody here" does not exist' in capsys.readouterr().err


async def test_application_can_neither_change_nor_remove_the_tables(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    for statement in (
        "TRUNCATE pgchannels.message",
        "DROP TABLE pgchannels.message_0",
        "ALTER TABLE pgchannels.message ADD COLUMN more text",
        "CREATE TABLE pgchannels.more ()",
        "UPDATE pgchannels.message SET payload = ''",
        "DELETE FROM pgchannels.log",
        "UPDATE pgchannels.pgchannels_version SET version_num = 'x'",
        "DROP SCHEMA pgchannels CASCADE",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


# One call at least of each function of ours.
CALLS: Final = {
    "refuse_late_call": ["SELECT pgchannels.refuse_late_call()"],
    "mend_sequence": ["SELECT pgchannels.mend_sequence()"],
    "start_epoch": ["SELECT pgchannels.start_epoch()"],
    "extent": ["SELECT * FROM pgchannels.extent()"],
    "find_time": ["SELECT * FROM pgchannels.find_time('topic:asgi:room', now())"],
    "topic_address": ["SELECT pgchannels.topic_address('room', 'asgi')"],
    "position": ["SELECT pgchannels.position('room')"],
    "lock_addresses": ["SELECT pgchannels.lock_addresses('{topic:asgi:room,queue:asgi:jobs}')"],
    "told": ["SELECT pgchannels.told(1, 'x!y', 'payload')"],
    "number_queued": ["SELECT pgchannels.number_queued('{queue:asgi:jobs,topic:asgi:room}', '{5,NULL}', NULL)"],
    "deliver": [
        f"""
        SELECT * FROM pgchannels.deliver(
            {batch}, 'infinity', '{{topic:asgi:room,queue:asgi:jobs,node:asgi:x}}', '{{NULL,NULL,x!y}}',
            '{{a,b,c}}', '{{NULL,1,5}}', {parts}, 60
        )
        """
        for batch, parts in ((1, "NULL"), (1, "NULL"), (2, "'{1,2,3}'"))
    ],
    "claim": [f"SELECT * FROM pgchannels.claim({number}, 'infinity', 'queue:asgi:jobs', 2)" for number in (5, 5, 6)],
    "take_turns": ["SELECT pgchannels.take_turns('queue:asgi:jobs', 'ada')"] * 2,
    "leave_token": ["SELECT pgchannels.leave_token('queue:asgi:jobs', 0::smallint, 'node:asgi:ada', NULL)"] * 2,
    "wake": ["SELECT pgchannels.wake('queue:asgi:jobs', 1, 0::smallint)"] * 2,
    "wake_another": ["SELECT pgchannels.wake_another('queue:asgi:jobs')"],
    "take": [
        "SELECT * FROM pgchannels.deliver(9, 'infinity', '{queue:asgi:jobs}', NULL, '{a}', '{9}', NULL, 60)",
        *[
            f"SELECT * FROM pgchannels.take({number}, 'infinity', 'queue:asgi:jobs', 1, 'node:asgi:ada', NULL, {waits},"
            " 60, 5, '{1}', '{1}')"
            for number, waits in ((7, "false"), (7, "true"), (8, "false"))
        ],
    ],
    "open_work": ["SELECT * FROM pgchannels.open_work('queue:asgi:jobs')"],
    "has_new_work": ["SELECT pgchannels.has_new_work('queue:asgi:jobs')"],
    "note_open_work": ["SELECT pgchannels.note_open_work('queue:asgi:jobs', 0::smallint, '{1}')"],
    "carry_work": ["SELECT pgchannels.carry_work(1::smallint, 'queue:asgi:jobs')"],
    "give_back": [
        "SELECT pgchannels.give_back('queue:asgi:jobs', array_agg(number), array_agg(id), array_agg(true))"
        " FROM pgchannels.message WHERE address LIKE 'working:%'"
    ],
    "give_back_abandoned": ["SELECT pgchannels.give_back_abandoned('queue:asgi:jobs', 'node:asgi:ada', '{1}')"],
    "end_work": ["SELECT pgchannels.end_work('queue:asgi:jobs', 0::smallint, '{1}', '{1}')"],
    "host": [
        f"SELECT * FROM pgchannels.host(gen_random_uuid(), 0, {version}, '{{topic:asgi:room}}', '{{a}}', true)"
        for version in ("NULL", "1")
    ],
    "keep_messages_for": ["SELECT pgchannels.keep_messages_for(60)"],
    "beat": ["SELECT * FROM pgchannels.beat(gen_random_uuid(), 'another', '1 s', '1 h', 'token')"],
    "listen": ["SELECT pgchannels.listen(gen_random_uuid())"],
    "probe": ["SELECT pgchannels.probe(gen_random_uuid(), 'token')"],
    "remove_nodes": ["SELECT pgchannels.remove_nodes(ARRAY[gen_random_uuid()])"],
    "end_listening": ["SELECT pgchannels.end_listening(gen_random_uuid())"],
    "end_session": ["SELECT pgchannels.end_session(1, now())"],
    "make_slot": ["SELECT pgchannels.make_slot(31)"],
    "empty_slot": ["SELECT pgchannels.empty_slot(true)"],
    "can_be_emptied": ["SELECT pgchannels.can_be_emptied(0::smallint)"],
    "keep_topics_for": [f"SELECT pgchannels.keep_topics_for('room*', 'asgi', {seconds})" for seconds in (0, 60)],
    "keep_topics": ["SELECT pgchannels.keep_topics(0::smallint)"] * 2,
    "note_gone": ["SELECT pgchannels.note_gone(100::smallint, 1)", "SELECT pgchannels.note_gone(0::smallint, 1)"],
    "gone": ["SELECT * FROM pgchannels.gone('{topic:asgi:room,topic:asgi:other}')"],
    "empty_kept_slots": [
        "UPDATE pgchannels.kept_slot SET filled_at = 'epoch'",
        "SELECT pgchannels.empty_kept_slots()",
    ],
    "is_logged": ["SELECT pgchannels.is_logged(0::smallint)"],
    "unused_slots": ["SELECT pgchannels.unused_slots()"],
    "turn_slot": ["UPDATE pgchannels.durability SET chosen = 'durable'", "SELECT pgchannels.turn_slot(1::smallint)"],
    "turn_outbox": ["SELECT pgchannels.turn_outbox()"],
    "last_id_in": ["SELECT pgchannels.last_id_in(0::smallint)"],
    "save_state": ["SELECT pgchannels.save_state()"],
    "recover_log": [
        """
        UPDATE pgchannels.log_state SET slot = 1; SELECT pgchannels.save_state();
        TRUNCATE pgchannels.log_state, pgchannels.filled_slot
        """,
        "SELECT pgchannels.recover_log(0, 1)",
    ],
    "clear_slots": ["SELECT pgchannels.clear_slots()"],
    "carry_queues": ["SELECT pgchannels.carry_queues(0::smallint)"],
    "rotate": [
        """
        UPDATE pgchannels.log_state SET rotated_at = 'epoch';
        INSERT INTO pgchannels.filled_slot SELECT 2, 'epoch', 1 WHERE NOT EXISTS (SELECT FROM pgchannels.filled_slot)
        """,
        *["SELECT pgchannels.rotate()"] * 3,
    ],
    "ids_of_keys": ["SELECT pgchannels.ids_of_keys('{topic:asgi:room,topic:asgi:room}', '{a,a}', 1)"],
    "outbox_database": ["SELECT pgchannels.outbox_database()"],
    "enqueue": ["SELECT pgchannels.enqueue('x', '{}', NULL, '{}', NULL, NULL, '{}')"],
    "notification_parts": ["SELECT pgchannels.notification_parts('{a,a}', '{b,c}', '{1,1}')"],
    "plain_envelope": ["""SELECT pgchannels.plain_envelope('{"a": [1, 1234567890123456789]}', '{"b": 1}')"""],
    "expiry_of_message": ["SELECT pgchannels.expiry_of_message(NULL)"],
    "publish": ["""SELECT pgchannels.publish('room', '{}', headers => '{"a": 1}', key => 'key', expiry => '1 s')"""],
    "publish_many": ["SELECT pgchannels.publish_many('{room,room}', ARRAY['1', '2']::jsonb[])"],
    "send": ["SELECT pgchannels.send('jobs', '{}'), pgchannels.send('x.y!z', '{}')"],
    "topic_of_row": ["""SELECT pgchannels.topic_of_row('a.{b}', '{"b": 1}', 'trigger')"""],
    "publish_row_change": [
        """
        CREATE TABLE watched (id int PRIMARY KEY, name text);
        CREATE TRIGGER watched AFTER INSERT OR UPDATE OR DELETE ON watched FOR EACH ROW
        EXECUTE FUNCTION pgchannels.publish_row_change('rows.{id}', 'without=name');
        """,
        "WITH added AS (INSERT INTO public.watched VALUES (1, 'a') RETURNING 1) SELECT * FROM added",
        "WITH changed AS (UPDATE public.watched SET name = 'b' RETURNING 1) SELECT * FROM changed",
        "WITH gone AS (DELETE FROM public.watched RETURNING 1) SELECT * FROM gone",
    ],
    "publish_row_changes": ["SELECT pgchannels.publish_row_changes('public.watched', 'rows', '{name}')"],
    "stop_row_changes": ["SELECT pgchannels.stop_row_changes('public.watched')"],
    "lock_outbox": ["SELECT pgchannels.lock_outbox('{1}')"],
    "deliver_transactions": ["SELECT pgchannels.deliver_transactions('{1}', true)"],
    "deliver_outbox": ["BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pgchannels.publish('room', '{}'); COMMIT"],
    "deliver_undelivered": ["SELECT pgchannels.deliver_undelivered()"],
}


@pytest.fixture
async def planter(connection: "asyncpg.Connection[asyncpg.Record]", stranger_url: str) -> str:
    """The role of a stranger that may create in `public`, and has planted what there is to plant."""
    role = stranger_url.split("//")[1].split(":")[0]
    await connection.execute(f"GRANT CREATE ON SCHEMA public TO {role}")
    planting = await asyncpg.connect(stranger_url)
    assert await plant(planting) > len(CALLS)
    await planting.close()
    return role


async def functions_of_ours(connection: "asyncpg.Connection[asyncpg.Record]") -> set[str]:
    """The names of all functions in the schema."""
    rows = await connection.fetch("SELECT proname FROM pg_proc WHERE pronamespace = 'pgchannels'::regnamespace")
    return {name for (name,) in rows}


async def test_what_a_stranger_plants_is_found_on_that_path(
    planter: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(f"SET search_path = {PATH}")
    for expression in ("'{a}'::text[] || '{b}'::text[]", "unnest('{a}'::text[])", "hashtext('a')", "1 + 1"):
        with pytest.raises(asyncpg.RaiseError, match=CAUGHT):
            await connection.fetch(f"SELECT {expression}")


async def test_no_function_runs_what_a_stranger_planted_on_the_search_path(
    planter: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    assert await functions_of_ours(connection) == set(CALLS)
    await connection.execute("SELECT pgchannels.extent()")
    await connection.execute("INSERT INTO pgchannels.member VALUES ('topic:asgi:room', 'queue:asgi:jobs', 9)")
    for call in itertools.chain.from_iterable(CALLS.values()):
        if call.lstrip().startswith("SELECT"):
            await connection.execute(f"SET search_path = {PATH}")
        with contextlib.suppress(asyncpg.QueryCanceledError):  # a late call is refused
            await connection.execute(call.replace("gen_random_uuid()", f"'{uuid4()}'::uuid"))
        await connection.execute("RESET search_path")


async def test_layer_runs_nothing_that_a_stranger_planted_on_the_path_of_its_role(
    planter: str, connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, application_role: str
) -> None:
    database = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER ROLE {application_role} IN DATABASE {database} SET search_path = {PATH}")
    async with MessageLayer(database_url) as layer, layer.subscribe("room") as subscription:
        channel = await layer.new_channel()
        await layer.publish_many([("room", 1), ("room", 2), ("other", "x" * 10_000)])
        await layer.send("jobs", 3)
        await layer.send(channel, 4)
        assert [(await within(anext(subscription))).payload for _ in range(2)] == [1, 2]
        assert [await within(layer.receive(name)) for name in ("jobs", channel)] == [3, 4]
        assert [message.payload for message in await layer.history("other")] == ["x" * 10_000]


async def test_schema_is_made_and_removed_by_what_is_ours_alone(planter: str, owner_url: str) -> None:
    url = make_url(owner_url).update_query_dict({"options": f"-csearch_path={PATH.replace(' ', '')}"})
    await migrations.upgrade(url, schema="another")
    await migrations.downgrade(url, schema="another")
    connection = await asyncpg.connect(owner_url, server_settings={"search_path": PATH})
    await connection.execute(migrations.upgrade_sql("third", "base:head"))
    async with connection.transaction():
        await connection.execute(migrations.downgrade_sql("third", "head:base"))
        assert await connection.fetchval("SHOW search_path") == PATH
    await connection.close()


async def test_stranger_with_every_advisory_lock_delays_neither_messages_nor_rotation(
    stranger: "asyncpg.Connection[asyncpg.Record]",
    layer: MessageLayer,
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    for lock in ("pg_advisory_lock", "pg_advisory_lock_shared"):
        await stranger.fetch(f"SELECT {lock}(hashtext('pgchannels'), n) FROM generate_series(0, 300) AS n")
    async with layer.subscribe("room") as subscription:
        await within(layer.publish("room", 1))
        await within(layer.send("jobs", 2))
        assert (await within(anext(subscription))).payload == 1
        assert await within(layer.receive("jobs")) == 2
    await let_pass(connection, 30)
    assert await rotate(connection)


async def test_rotation_that_a_session_keeps_from_happening_is_logged_and_shown(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", caplog: pytest.LogCaptureFixture
) -> None:
    overdue = "SELECT is_overdue FROM pgchannels.log_status"
    holder = await asyncpg.connect(database_url)
    async with MessageLayer(database_url, expiry=0.2) as layer:
        await layer.publish("room", 1)
        assert not await connection.fetchval(overdue)
        async with holder.transaction():
            await holder.execute("SELECT FROM pgchannels.stripe FOR UPDATE")
            await let_pass(connection, 3600)
            await until(lambda: logged(caplog, "the log cannot rotate, and grows"))
            assert await connection.fetchval(overdue)
        await until(lambda: logged(caplog, "the log rotates again"))
        assert not await connection.fetchval(overdue)
    await holder.close()


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    """Whether something was logged."""
    return any(text in record.getMessage() for record in caplog.records)


async def test_role_that_may_only_publish_does_that_and_nothing_else(
    layer: MessageLayer,
    stranger: "asyncpg.Connection[asyncpg.Record]",
    stranger_url: str,
    owner_url: str,
    connection: "asyncpg.Connection[asyncpg.Record]",
    capsys: pytest.CaptureFixture[str],
) -> None:
    role = await stranger.fetchval("SELECT current_user")
    status = await asyncio.to_thread(main, ["upgrade", "--url", owner_url, "--grant-publish-to", role])
    assert (status, capsys.readouterr().out.splitlines()[-1]) == (0, f"The role {role!r} may publish.")
    await connection.execute(
        f"""
        CREATE TABLE orders (id int PRIMARY KEY);
        SELECT pgchannels.publish_row_changes('orders', 'room');
        GRANT INSERT ON orders TO {role};
        """
    )
    async with layer.subscribe("room") as subscription:
        await stranger.execute("SELECT pgchannels.publish('room', '1')")
        await stranger.execute("SELECT pgchannels.publish_many('{room}', '{2}')")
        await layer.publish("room", 3, connection=stranger)
        await stranger.execute("INSERT INTO orders VALUES (4)")
        async with stranger.transaction(isolation="serializable"):
            await layer.publish("room", 5, connection=stranger)
        payloads = [(await within(anext(subscription))).payload for _ in range(5)]
        assert [*payloads[:3], payloads[3]["new"], payloads[4]] == [1, 2, 3, {"id": 4}, 5]
    await stranger.execute("SELECT pgchannels.send('jobs', '6')")
    assert await within(layer.receive("jobs")) == 6
    for table in (*TABLES, *VIEWS):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.execute(f"SELECT FROM pgchannels.{table}")
    for call in ("deliver_undelivered()", "deliver_transactions('{}', false)", "extent()", "rotate()"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.execute(f"SELECT pgchannels.{call}")
    with pytest.raises(DatabaseRefused, match="permission denied"):
        await MessageLayer(stranger_url).open()


@pytest.mark.parametrize("address", ["node:asgi:x", "claimed:asgi:jobs", "outcome:", "", "member"])
async def test_nobody_puts_into_the_outbox_what_only_nodes_may_send(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]", address: str
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot deliver this message"):
        await connection.execute("SELECT pgchannels.enqueue(NULL, ARRAY[$1], NULL, '{a}', NULL, NULL, '{60}')", address)


async def test_role_that_may_not_publish_is_refused_with_the_command_that_helps(
    layer: MessageLayer, stranger: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    with pytest.raises(ConfigurationError, match=r"may not publish.*pgchannels upgrade --grant-publish-to ROLE"):
        await layer.publish("room", 1, connection=stranger)
