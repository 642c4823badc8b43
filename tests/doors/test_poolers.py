"""Poolers between a layer and its server: what works through which, and what is said of those that cannot work."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from pgchannels import ConfigurationError, DatabaseRefused, DatabaseUnavailable, MessageLayer
from pgchannels.cli import main
from pgchannels.database import migrations
from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.database.failures import NothingHeard, SessionShared, TransactionsRefused
from pgchannels.database.wording import Place, explained
from pgchannels.embedded import EmbeddedServer
from tests.support.connections import fetchval
from tests.support.poolers import pgbouncer, pgpool
from tests.support.roads import ROADS, node_of
from tests.support.snippets import snippet
from tests.support.waiting import LIMIT_SECONDS, until, within

POLL: Final[dict[str, Any]] = {"poll": 0.05}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server of its own, with the schema."""
    with EmbeddedServer() as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


@pytest.fixture(scope="module")
def transaction_url(server: EmbeddedServer) -> Iterator[str]:
    """The server through PgBouncer in transaction mode, with fewer sessions than a layer has connections."""
    with pgbouncer(server, mode="transaction", most=2) as url:
        yield url


@pytest.fixture(scope="module")
def session_url(server: EmbeddedServer) -> Iterator[str]:
    """The server through PgBouncer in session mode."""
    with pgbouncer(server, mode="session") as url:
        yield url


@pytest.fixture(scope="module")
def pgpool_url(server: EmbeddedServer) -> Iterator[str]:
    """The server through Pgpool-II."""
    with pgpool(server) as url:
        yield url


PAGE_POOLER, PAGE_SERVER = (f"postgresql://user:password@localhost:{port}/mydb" for port in (6432, 5432))
NO_TRANSACTIONS: Final = "allows no transactions, as PgBouncer in statement mode does"
COMMANDS: Final = (
    *("upgrade", "status", "retention", "retention 2min", "durability", "durability durable", "durability fast"),
    *("watch watched --topic watched", "unwatch watched", "upgrade --grant-to pg_monitor"),
)
WAYS: Final = {
    "PgBouncer in transaction mode, polling": ("transaction_url", "poll"),
    "PgBouncer in transaction mode, listening directly": ("transaction_url", "listen_url"),
    "PgBouncer in session mode": ("session_url", ""),
    "PgBouncer in session mode, polling": ("session_url", "poll"),
    "Pgpool-II": ("pgpool_url", ""),
    "Pgpool-II, polling": ("pgpool_url", "poll"),
    "Pgpool-II, listening directly": ("pgpool_url", "listen_url"),
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def way(request: pytest.FixtureRequest, server: EmbeddedServer) -> dict[str, Any]:
    """The arguments of a layer that reaches the server through a pooler."""
    fixture, option = request.param
    options = {"poll": POLL, "listen_url": {"listen_url": server.url()}, "": {}}[option]
    return {"database": request.getfixturevalue(fixture), **options}


@pytest.mark.parametrize("road", ROADS.values(), ids=ROADS.keys())
async def test_messages_of_any_size_arrive_once_and_in_order(way: dict[str, Any], road: Any) -> None:
    async with MessageLayer(**way) as layer, MessageLayer(**way) as other, road(layer) as receiving:
        sizes = [1, 10_000, 1, 100, 2_000_000, 1]
        for number, size in enumerate(sizes):
            await receiving.send(other, [number, "x" * size])
        received = [await within(receiving.receive()) for _ in sizes]
        assert [(number, len(text)) for number, text in received] == list(enumerate(sizes))


async def test_history_position_and_flush(way: dict[str, Any]) -> None:
    async with MessageLayer(**way) as layer:
        position = await layer.publish("history", 1)
        assert [message.payload for message in await layer.history("history", limit=1)] == [1]
        assert await layer.position("history") >= position
        await within(node_of(layer).sender.flush())
        assert await layer.history("history") == []


async def test_message_of_a_transaction_through_the_pooler_arrives_if_that_commits(way: dict[str, Any]) -> None:
    connection = await asyncpg.connect(way["database"], statement_cache_size=0)
    async with MessageLayer(**way) as layer, layer.subscribe("orders") as subscription:
        for number in range(3):
            transaction = connection.transaction()
            await transaction.start()
            await layer.publish("orders", number, connection=connection)
            await (transaction.rollback() if number == 1 else transaction.commit())
        assert [(await within(anext(subscription))).payload for _ in range(2)] == [0, 2]
    await connection.close()


async def test_sync_layer_sends_through_the_pooler(way: dict[str, Any]) -> None:
    async with MessageLayer(**way) as layer, layer.subscribe("room") as subscription:
        sending = MessageLayer(**way)
        await asyncio.to_thread(sending.sync.publish, "room", 1)
        assert (await within(anext(subscription))).payload == 1
        await asyncio.to_thread(sending.sync.close)


async def test_session_in_which_a_layer_listened_goes_on_when_it_closes(server: EmbeddedServer) -> None:
    latest = "SELECT pid FROM pgchannels.node ORDER BY leased_until DESC LIMIT 1"
    with pgbouncer(server, mode="session", most=4) as url:
        for _ in range(5):
            async with MessageLayer(url) as layer:
                await layer.publish("room", 1)  # a session with an unfinished statement would end with the layer
                session = await fetchval(server.url(), latest)
            others = [await asyncpg.connect(url) for _ in range(4)]
            assert session in [await other.fetchval("SELECT pg_backend_pid()") for other in others]
            for other in others:
                await other.close()


async def test_session_that_a_pooler_has_given_to_another_goes_on(server: EmbeddedServer) -> None:
    node = uuid4()
    with pgbouncer(server, mode="session", most=1) as url:
        lost = await asyncpg.connect(url)
        session = await lost.fetchval("SELECT pg_backend_pid()")
        await lost.execute("SELECT pgchannels.listen($1)", node)
        await lost.close()
        async with other_with(session, url) as other:
            admin = await asyncpg.connect(server.url())
            await admin.execute(
                "INSERT INTO pgchannels.node (id, name, leased_until, pid, session_began_at)"
                " SELECT $1, 'gone', now(), pid, backend_start FROM pg_stat_activity WHERE pid = $2",
                *(node, session),
            )
            await admin.execute("SELECT pgchannels.remove_nodes(ARRAY[$1::uuid])", node)
            await admin.close()
            assert await other.fetchval("SELECT 1") == 1


async def test_session_of_a_lost_connection_goes_on_that_a_pooler_has_given_to_another(server: EmbeddedServer) -> None:
    with pgbouncer(server, mode="session", most=2) as url:
        connections = Connections(Database(url))
        lost = await connections._for_all.opened()
        session = await lost.fetchval("SELECT pg_backend_pid()")
        lost.terminate()
        async with other_with(session, url) as other:
            await connections.open()
            assert await other.fetchval("SELECT 1") == 1
        await connections.close()


async def test_cancelled_statement_ends_its_connection_and_sends_no_request_through_the_pooler(
    server: EmbeddedServer,
) -> None:
    sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND pid <> pg_backend_pid()"
    with pgbouncer(server, mode="session") as url:
        connections = Connections(Database(url))
        connection = await connections._for_all.opened()
        call = asyncio.create_task(connections.fetch_text("SELECT pg_sleep(60)"))
        await until(lambda: _is_one(server.url(), sleeping))
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        assert connection.is_closed()
        await _execute(server.url(), sleeping.replace("count(*)", "pg_terminate_backend(pid)"))
        await connections.close()


@pytest.mark.parametrize("most", [1, 2, 20])
async def test_layer_that_is_refused_leaves_nothing_in_the_sessions_of_others(
    server: EmbeddedServer, most: int
) -> None:
    with pgbouncer(server, mode="transaction", most=most) as url:
        others = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(most)]
        before = await asyncio.gather(*map(traces, others))
        with pytest.raises(DatabaseRefused, match="a pooler stands between that gives each transaction another"):
            await within(MessageLayer(url).open())
        assert await asyncio.gather(*map(traces, others)) == before
        for other in others:
            await other.close()


@asynccontextmanager
async def other_with(session: int, url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Another client of the pooler, once that has given it the session."""
    while True:
        other = await asyncpg.connect(url)
        try:
            if await other.fetchval("SELECT pg_backend_pid()") == session:
                yield other
                return
        finally:
            await other.close()


async def test_layer_leaves_nothing_in_the_sessions_of_others(server: EmbeddedServer) -> None:
    with pgbouncer(server, mode="transaction", most=1) as url:
        other = await asyncpg.connect(url, statement_cache_size=0)
        before = await traces(other)
        async with MessageLayer(url, **POLL) as layer, layer.subscribe("room") as subscription:
            await layer.publish("room", 1)
            await within(anext(subscription))
            assert await traces(other) == before
        await other.close()


async def test_commands_leave_nothing_in_the_sessions_of_others_and_work_again(server: EmbeddedServer) -> None:
    with pgbouncer(server, mode="transaction", most=1) as url:
        other = await asyncpg.connect(url, statement_cache_size=0)
        await other.execute("CREATE TABLE IF NOT EXISTS watched (id int PRIMARY KEY)")
        before = await traces(other)
        for _ in range(2):
            for command in COMMANDS:
                name, *arguments = command.split(" ")
                assert await asyncio.to_thread(main, [name, *arguments, "--url", url]) == 0, command
                assert await traces(other) == before, command
        await other.close()


async def traces(connection: "asyncpg.Connection[asyncpg.Record]") -> tuple[object, ...]:
    """What somebody may leave in a session: settings, statements with names, names that it listens to, its role."""
    settings = (
        "SELECT name, setting FROM pg_settings WHERE source = 'session'"
        " AND name NOT IN ('application_name', 'client_encoding') ORDER BY name"  # the pooler's own care
    )
    return (
        await connection.fetch(settings),
        await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''"),
        await connection.fetchval("SELECT count(*) FROM pg_listening_channels()"),
        await connection.fetchval("SELECT current_user"),
    )


async def test_role_of_the_url_is_set_in_each_transaction(server: EmbeddedServer, transaction_url: str) -> None:
    await _execute(server.url(), 'CREATE ROLE "nobody at all"')
    url = make_url(transaction_url).update_query_dict({"role": "nobody at all"})
    with pytest.raises(DatabaseRefused, match="permission denied for schema pgchannels"):
        await within(MessageLayer(url, **POLL).open())


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def test_lost_sessions_of_a_pooler_lose_no_message(
    request: pytest.FixtureRequest, server: EmbeddedServer, way: dict[str, Any]
) -> None:
    admin = await asyncpg.connect(server.url())
    async with MessageLayer(**way) as layer, layer.subscribe("room") as subscription:
        for number in range(1 if "Pgpool" in request.node.name else 3):  # it takes its time
            await admin.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"  # gone before the next test opens
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            await within(layer.publish("room", number))
            assert (await within(anext(subscription))).payload == number
    await admin.close()


async def test_cancelled_call_leaves_no_transaction_open(server: EmbeddedServer, transaction_url: str) -> None:
    admin = await asyncpg.connect(server.url())
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    async with MessageLayer(transaction_url, **POLL, heartbeat=60) as layer, layer.subscribe("room") as subscription:
        async with admin.transaction():
            await admin.execute("LOCK pgchannels.message IN ACCESS EXCLUSIVE MODE")
            reading = asyncio.create_task(layer.history("room"))
            await until(lambda: _is_one(server.url(), waiting))
            reading.cancel()
            await asyncio.wait([reading])
        await until(lambda: _is_none_open(server.url()))
        await within(layer.publish("room", 1))
        assert (await within(anext(subscription))).payload == 1
    await admin.close()


async def _is_one(url: str, query: str) -> bool:
    return bool(await fetchval(url, query))


async def _is_none_open(url: str) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    return await fetchval(url, query) == 0


@pytest.mark.parametrize("options", [{}, POLL, {"listen_url": "the server"}], ids=["plain", "poll", "listen_url"])
async def test_statement_mode_is_refused_with_what_to_do(server: EmbeddedServer, options: dict[str, Any]) -> None:
    options = {"listen_url": server.url()} if "listen_url" in options else options
    with pgbouncer(server, mode="statement") as url:
        with pytest.raises(
            DatabaseRefused, match="allows no transactions, as PgBouncer in statement mode does"
        ) as raised:
            await within(MessageLayer(url, **options).open(wait=60))
        assert "\n" not in str(raised.value)
        with pytest.raises(DatabaseRefused, match=rf"{NO_TRANSACTIONS}.*; let the pooler use transaction mode"):
            await within(MessageLayer(url, **options).publish("room", 1))


def test_command_through_statement_mode_says_what_to_do(
    server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pgbouncer(server, mode="statement") as url:
        for command in ("upgrade", "status", "durability"):
            assert main([command, "--url", url]) == 1
            assert NO_TRANSACTIONS in capsys.readouterr().err


async def test_pool_without_a_session_for_each_connection_is_named(server: EmbeddedServer) -> None:
    with pgbouncer(server, mode="session", most=2) as url:
        layer = MessageLayer(make_url(url).update_query_dict({"connect_timeout": "2"}))
        with pytest.raises(DatabaseUnavailable, match=r"no answer in time; .* default_pool_size, or look into the log"):
            await within(layer.open())


async def test_url_to_listen_must_lead_to_the_same_database(server: EmbeddedServer, transaction_url: str) -> None:
    await _execute(server.url(), "CREATE DATABASE copied TEMPLATE template0")
    elsewhere = make_url(server.url()).set(database="copied")
    await migrations.upgrade(elsewhere)
    layer = MessageLayer(transaction_url, listen_url=elsewhere)
    with pytest.raises(ConfigurationError, match=r"listen_url leads to the database 'copied' at .*: give the direct"):
        await within(layer.open())
    await _execute(server.url(), "DROP DATABASE copied")


async def test_url_to_listen_may_not_lead_to_a_database_without_tables(
    server: EmbeddedServer, transaction_url: str
) -> None:
    elsewhere = make_url(server.url()).set(database="template1")
    with pytest.raises(ConfigurationError, match=r"leads to the database 'template1' at .*: give the"):
        await within(MessageLayer(transaction_url, listen_url=elsewhere).open())


async def test_refusal_of_the_url_to_listen_is_told_of_it(server: EmbeddedServer, transaction_url: str) -> None:
    await _execute(server.url(), "CREATE ROLE nobody LOGIN")
    alone = make_url(server.url()).set(username="nobody")
    with pytest.raises(DatabaseRefused, match=r"'postgres' of listen_url at .* refused: permission"):
        await within(MessageLayer(transaction_url, listen_url=alone).open())
    nowhere = make_url(server.url()).set(database="nowhere")
    with pytest.raises(DatabaseRefused, match=r"cannot open the database 'nowhere' of listen_url at"):
        await within(MessageLayer(transaction_url, listen_url=nowhere).open())
    await _execute(server.url(), "DROP ROLE nobody")


async def test_url_to_listen_may_not_lead_through_the_pooler(transaction_url: str) -> None:
    with pytest.raises(DatabaseRefused, match=r"a pooler stands between .* as listen_url= beside this one"):
        await within(MessageLayer(transaction_url, listen_url=transaction_url).open())


async def test_engine_is_refused_by_the_option(server: EmbeddedServer) -> None:
    engine = create_async_engine(make_url(server.url()).set(drivername="postgresql+asyncpg"))
    values: dict[str, Any] = {"poll": 1, "listen_url": server.url()}
    for name, value in values.items():
        with pytest.raises(ConfigurationError, match=f"{name}= goes with a URL, and the layer has an AsyncEngine"):
            MessageLayer(engine, **{name: value})
    await engine.dispose()


@pytest.mark.parametrize("url", ["mysql://localhost/db", "", "nonsense", 5])
def test_impossible_url_to_listen_is_named(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="listen_url"):
        MessageLayer("postgresql://localhost/db", listen_url=url)


HOSTS: Final = {
    "Neon": ("ep-cool-rain-123456-pooler.eu-central-1.aws.neon.tech:5432", "Neon's pooled host.*without '-pooler'"),
    "Supabase": ("aws-0-eu-central-1.pooler.supabase.com:6543", "Supabase's pooler in transaction mode.*port 5432"),
    "RDS Proxy": ("shop.proxy-c1abcdefghij.eu-west-1.rds.amazonaws.com:5432", "an RDS Proxy.*instance or cluster"),
    "Azure": ("shop.postgres.database.azure.com:6432", "Azure's PgBouncer.*port 5432"),
    "DigitalOcean": ("db-1.b.db.ondigitalocean.com:25061", "DigitalOcean's connection pool.*25060"),
}


@pytest.mark.parametrize("failure", [SessionShared, NothingHeard, TransactionsRefused])
@pytest.mark.parametrize(("host", "text"), HOSTS.values(), ids=HOSTS.keys())
def test_pooler_of_a_provider_is_named_with_the_direct_way(host: str, text: str, failure: type[Exception]) -> None:
    told = explained(failure(), Place("shop", host))
    assert isinstance(told, DatabaseRefused | DatabaseUnavailable)
    assert re.search(text, str(told))


@pytest.mark.parametrize("host", ["localhost:5432", "db-pooler.example.com:5432", "ep-a-1.eu.aws.neon.tech:5432"])
def test_nothing_is_said_of_other_hosts(host: str) -> None:
    assert "(" not in str(explained(SessionShared(), Place("shop", host)))


def test_readers_endpoint_is_named() -> None:
    standby = ConnectionError("it is a standby, which takes no writes until it is promoted")
    host = "shop.cluster-ro-c1abcdefghij.eu-west-1.rds.amazonaws.com:5432"
    assert "Aurora's reader endpoint" in str(explained(standby, Place("shop", host)))


@pytest.mark.parametrize("option", ["listen_url", "poll"])
async def test_layers_of_the_page_work_through_a_pooler(
    server: EmbeddedServer, transaction_url: str, option: str
) -> None:
    script = snippet("docs/how-to/poolers.md", f"{option}=")
    for placeholder, url in {PAGE_POOLER: transaction_url, PAGE_SERVER: server.url()}.items():
        script = script.replace(placeholder, url)
    names: dict[str, Any] = {}
    exec(script, names)
    async with names["layer"] as layer, layer.subscribe("room") as subscription:
        await layer.publish("room", 1)
        assert (await within(anext(subscription))).payload == 1


async def test_open_and_send_wait_for_a_server_that_is_down_behind_pgpool() -> None:
    with EmbeddedServer(durable=True) as server, pgpool(server) as url:
        await migrations.upgrade(server.url())
        await asyncio.to_thread(server.kill)
        layer, sending = MessageLayer(url), MessageLayer(url)
        with pytest.raises(DatabaseUnavailable, match="failed to create a backend"):
            await layer.open()
        opening = asyncio.create_task(layer.open(wait=LIMIT_SECONDS))
        publishing = asyncio.create_task(asyncio.to_thread(sending.sync.publish, "room", 1))
        await asyncio.to_thread(server.start)
        await within(asyncio.gather(opening, publishing))
        await layer.close()
        await asyncio.to_thread(sending.sync.close)
