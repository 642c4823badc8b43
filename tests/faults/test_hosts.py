"""Of several hosts the one that takes writes is found, whatever the others say, and whoever it is by now."""

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import asyncpg
import pytest

from pgchannels import DatabaseRefused, DatabaseUnavailable, MessageLayer
from pgchannels.cli import main
from pgchannels.database import migrations
from pgchannels.database.database import CONNECT_TIMEOUT_SECONDS, Database, prepare
from pgchannels.database.failures import HostsRefused
from pgchannels.embedded import EmbeddedServer
from tests.faults.cluster import Cluster
from tests.support.proxy import Proxy
from tests.support.waiting import until, within

HEARTBEAT_SECONDS = 0.3
PASSWORD, WRONG = "secret/word", "wrong/word"

# `shop` needs a password on the primary alone.
HBA = """
local replication all trust
local all postgres trust
local all all scram-sha-256
"""
ROLES = f"""
CREATE ROLE shop SUPERUSER LOGIN PASSWORD '{PASSWORD}';
CREATE ROLE crowded LOGIN CONNECTION LIMIT 0 PASSWORD '{PASSWORD}';
CREATE ROLE reader SUPERUSER LOGIN PASSWORD '{PASSWORD}';
ALTER ROLE reader SET default_transaction_read_only = on;
"""

ATTRIBUTES = ["", "&target_session_attrs=primary", "&target_session_attrs=read-write", "&target_session_attrs=any"]


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    """A primary and a standby for the tests that leave them what they are."""
    with Cluster() as cluster:
        asyncio.run(execute(cluster.primary.url(), ROLES))
        asyncio.run(migrations.upgrade(cluster.primary.url()))
        asyncio.run(cluster.checkpoint())
        (cluster.primary.data_directory / "pg_hba.conf").write_text(HBA)
        cluster.primary.restart()
        yield cluster


async def execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def folder(server: EmbeddedServer) -> str:
    """The host of a server on this machine."""
    return str(server.socket_directory)


def url_of(*hosts: str, user: str = "postgres", password: str = PASSWORD, database: str = "postgres") -> str:
    return f"postgresql://{user}:{quote(password, safe='')}@/{database}?host={','.join(hosts)}"


def both(cluster: Cluster, order: str, **account: str) -> str:
    """The URL of both servers."""
    hosts = [folder(cluster.primary), folder(cluster.standby)]
    return url_of(*(hosts if order == "primary first" else reversed(hosts)), **account)


def all_words(error: BaseException) -> str:
    """Whatever somebody sees of an error and of those that led to it."""
    return "".join(traceback.format_exception(error)) + repr(error)


async def require_delivery(url: str) -> None:
    """A message goes through a layer on this database."""
    async with MessageLayer(url) as layer, layer.subscribe("room") as subscription:
        await within(layer.publish("room", 1))
        assert (await within(anext(subscription))).payload == 1


by_order = pytest.mark.parametrize("order", ["primary first", "standby first"])


@by_order
@pytest.mark.parametrize("attribute", ATTRIBUTES)
async def test_primary_is_found_in_either_order(pair: Cluster, order: str, attribute: str) -> None:
    await require_delivery(both(pair, order) + attribute)


@pytest.mark.parametrize("attribute", ["any", "primary", "read-write", "prefer-standby"])
async def test_environment_that_asks_for_a_server_gets_the_primary(
    pair: Cluster, monkeypatch: pytest.MonkeyPatch, attribute: str
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", attribute)
    monkeypatch.setenv("PGHOST", f"{folder(pair.standby)},{folder(pair.primary)}")
    await require_delivery("postgresql://postgres@/postgres")


@by_order
@pytest.mark.parametrize("attribute", ["", "&target_session_attrs=primary"])
async def test_layer_goes_on_after_a_restart_of_the_primary_beside_a_standby(
    pair: Cluster, order: str, attribute: str
) -> None:
    async with (
        MessageLayer(both(pair, order) + attribute, heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room", on_gap=lambda _: None) as subscription,
    ):
        await layer.publish("room", "before")
        assert (await within(anext(subscription))).payload == "before"
        await asyncio.to_thread(pair.primary.restart)
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"


async def test_standby_by_itself_is_told_and_opens_once_it_is_promoted(cluster: Cluster) -> None:
    url = url_of(folder(cluster.standby))
    with pytest.raises(DatabaseUnavailable, match=r":5432: it is a standby"):
        await MessageLayer(url).open()
    await asyncio.to_thread(cluster.promote)
    await require_delivery(url)


async def test_standby_is_told_in_the_same_words_to_all(pair: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    url = url_of(folder(pair.standby))
    texts = set()
    for layer in (MessageLayer(url), MessageLayer(url, poll=1)):
        with pytest.raises(DatabaseUnavailable, match=r":5432: it is a standby, .*; give the address of the") as raised:
            await layer.open()
        texts.add(str(raised.value))
    assert await asyncio.to_thread(main, ["status", "--url", url]) == 1
    [text] = texts
    assert text in capsys.readouterr().err


@by_order
async def test_primary_is_found_without_sessions(pair: Cluster, order: str) -> None:
    url = both(pair, order)
    async with MessageLayer(url, poll=0.05) as layer, layer.subscribe("room") as subscription:
        await within(layer.publish("room", 1))
        assert (await within(anext(subscription))).payload == 1
    await migrations.upgrade(url)


@by_order
async def test_layer_waits_beside_a_standby_until_it_is_promoted(
    cluster: Cluster, order: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        MessageLayer(both(cluster, order), heartbeat=HEARTBEAT_SECONDS) as layer,
        layer.subscribe("room", on_gap=lambda _: None) as subscription,
    ):
        await layer.publish("room", "before")
        assert (await within(anext(subscription))).payload == "before"
        await until(cluster.has_replayed_all)
        await asyncio.to_thread(cluster.kill_primary)
        await until(lambda: is_logged(caplog, "it is a standby"))
        async with asyncio.TaskGroup() as waiting:
            waiting.create_task(within(layer.publish("room", "after")))
            await asyncio.to_thread(cluster.promote)
        assert (await within(anext(subscription))).payload == "after"


async def is_logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


@by_order
async def test_subscribers_follow_the_primary_there_and_back(cluster: Cluster, order: str) -> None:
    url = both(cluster, order)
    async with (
        MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as receiver,
        MessageLayer(url, heartbeat=HEARTBEAT_SECONDS) as sender,
        receiver.subscribe("room", on_gap=lambda _: None) as subscription,
    ):
        for turn in range(3):
            await within(sender.publish("room", turn))
            assert (await within(anext(subscription))).payload == turn
            if turn < 2:
                await cluster.checkpoint()
                await asyncio.to_thread(cluster.kill_primary)
                await asyncio.to_thread(cluster.promote)
                await asyncio.to_thread(cluster.exchange)


@by_order
async def test_both_hosts_give_their_reasons(pair: Cluster, order: str) -> None:
    with pytest.raises(DatabaseUnavailable) as raised:
        await MessageLayer(both(pair, order, user="shop", password=WRONG)).open()
    reasons = [
        f'{folder(pair.primary)}:5432: password authentication failed for user "shop"',
        f"{folder(pair.standby)}:5432: it is a standby, which takes no writes until it is promoted",
    ]
    told = reasons if order == "primary first" else reasons[::-1]
    advice = "correct the user or the password"
    assert str(raised.value) == f"cannot reach the database 'postgres' at {'; '.join(told)}; {advice}"
    assert WRONG not in all_words(raised.value)
    assert quote(WRONG, safe="") not in all_words(raised.value)


@by_order
async def test_right_password_on_one_host_is_enough(pair: Cluster, order: str) -> None:
    await require_delivery(both(pair, order, user="shop"))


async def test_hosts_that_all_refuse_are_told_as_refusing(pair: Cluster) -> None:
    with pytest.raises(DatabaseRefused) as raised:
        await within(MessageLayer(both(pair, "primary first", database="nowhere")).open())
    reasons = [f'{folder(server)}:5432: database "nowhere" does not exist' for server in (pair.primary, pair.standby)]
    advice = "create it, or correct the name of the database"
    assert str(raised.value) == f"cannot open the database 'nowhere' at {'; '.join(reasons)}; {advice}"


async def test_wrong_password_on_the_only_host_is_told_as_refused(pair: Cluster) -> None:
    with pytest.raises(DatabaseRefused, match=r":5432: password authentication failed") as raised:
        await within(MessageLayer(url_of(folder(pair.primary), user="shop", password=WRONG)).open())
    assert WRONG not in all_words(raised.value)


async def test_setting_that_the_server_does_not_know_is_told_as_refused(pair: Cluster) -> None:
    with pytest.raises(HostsRefused, match='unrecognized configuration parameter "nothing"'):
        await Database(url_of(folder(pair.primary)) + "&options=-c%20nothing=1").open()


@pytest.mark.parametrize(
    ("user", "reason"), [("crowded", 'too many connections for role "crowded"'), ("reader", "it takes no writes")]
)
async def test_primary_that_cannot_be_used_now_is_worth_trying_again(pair: Cluster, user: str, reason: str) -> None:
    with pytest.raises(ConnectionError, match=reason):
        await Database(url_of(folder(pair.primary), user=user)).open()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """A server of another kind that says this to everyone."""

    async def answer_and_close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer_and_close, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """A port that nobody listens at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("sslmode", ["prefer", "disable"])
async def test_hosts_that_are_no_servers_are_passed_over(pair: Cluster, sslmode: str) -> None:
    async with refusing() as nobody, answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as web, answering(b"") as closing:
        hosts = ["no%20name:1", "/nowhere:1", nobody, web, closing]
        with pytest.raises(ConnectionError) as raised:
            await within(Database(url_of(*hosts) + f"&sslmode={sslmode}").open())
        told = str(raised.value).split("; ")
        assert told[:3] == [
            "no name:1: its name cannot be resolved",
            "/nowhere:1: no such file or directory",
            f"{nobody}: connection refused",
        ]
        assert [reason.partition(": ")[0] for reason in told[3:]] == [web, closing]
        await require_delivery(url_of(*hosts, folder(pair.primary)) + f"&sslmode={sslmode}")


async def test_host_without_tls_is_passed_over_by_who_insists_on_it(pair: Cluster) -> None:
    async with Proxy(pair.primary.url()) as proxy:
        url = url_of(f"127.0.0.1:{proxy.port}") + "&sslmode=require"
        with pytest.raises(ConnectionError, match="rejected SSL upgrade"):
            await Database(url).open()
        await require_delivery(url_of(f"127.0.0.1:{proxy.port}", folder(pair.primary)) + "&sslmode=require")


async def test_host_that_worked_last_is_the_first_that_is_tried(pair: Cluster) -> None:
    async with Proxy(pair.primary.url()) as proxy:
        database = Database(url_of(f"127.0.0.1:{proxy.port}", folder(pair.primary)))
        assert await addresses(database, 2) == ["127.0.0.1", "127.0.0.1"]
        proxy.refuse()
        assert await addresses(database, 1) == ["socket"]
        proxy.restore()
        assert await addresses(database, 1) == ["socket"]


async def addresses(database: Database, count: int) -> list[str]:
    """Which of the hosts the next connections are to."""
    found = []
    for _ in range(count):
        connection = await database.open()
        peer = getattr(connection, "_addr")  # noqa: B009 -- asyncpg does not tell otherwise
        found.append("socket" if isinstance(peer, str) else str(peer[0]))
        await connection.close()
    return found


async def test_host_that_says_nothing_leaves_the_others_their_time(pair: Cluster) -> None:
    async with Proxy(pair.primary.url()) as silent:
        silent.freeze()
        hosts = f"127.0.0.1:{silent.port}", folder(pair.standby), folder(pair.primary)
        async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            assert await addresses(Database(url_of(*hosts)), 1) == ["socket"]


async def test_silence_is_told_as_a_reason(pair: Cluster) -> None:
    async with Proxy(pair.primary.url()) as silent:
        silent.freeze()
        with pytest.raises(ConnectionError, match=rf"^127.0.0.1:{silent.port}: no answer in time; .*: it is a standby"):
            await within(Database(url_of(f"127.0.0.1:{silent.port}", folder(pair.standby))).open())


@pytest.mark.parametrize("wanted", ["any", "primary", "prefer-standby"])
async def test_standby_is_called_one_whatever_the_environment_asks_for(
    pair: Cluster, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setenv("PGTARGETSESSIONATTRS", wanted)
    with pytest.raises(ConnectionError, match="it is a standby"):
        await Database(url_of(folder(pair.standby))).open()


async def test_rejected_standby_is_left_without_a_connection(pair: Cluster) -> None:
    with pytest.raises(ConnectionError, match="it is a standby"):
        await Database(url_of(folder(pair.standby)) + "&application_name=rejected").open()
    await until(lambda: is_left(pair.standby.url()))


async def is_left(url: str) -> bool:
    connection = await asyncpg.connect(url)
    try:
        count = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rejected'")
        return bool(count == 0)
    finally:
        await connection.close()


async def test_connection_of_ones_own_is_asked_as_well(pair: Cluster) -> None:
    for server, outcome in ((pair.primary, "primary"), (pair.standby, "it is a standby")):
        connection = await asyncpg.connect(server.url())
        assert outcome in await answer_of(connection)
        await connection.close()
        assert "connection" in await answer_of(connection)


async def answer_of(connection: "asyncpg.Connection[asyncpg.Record]") -> str:
    try:
        await prepare(connection)
    except (ConnectionError, asyncpg.InterfaceError) as error:
        return str(error)
    return "primary"
