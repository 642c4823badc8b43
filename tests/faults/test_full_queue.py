"""PostgreSQL's queue of notifications, which all databases of a server share, is full: nobody can notify anybody."""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias
from uuid import uuid4

import asyncpg
import pytest

from pgchannels import DatabaseUnavailable, MessageLayer
from pgchannels.database import migrations
from pgchannels.database.grants import grant
from pgchannels.embedded import EmbeddedServer
from pgchannels.embedded.binaries import find_binaries
from tests.conftest import url_of_role
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

FIRST_WITH_SETTING: Final = 17  # before, the queue takes 8 GB, and a minute to fill it
FULL: Final = "PostgreSQL's notification queue is full"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server with a small queue, the schema, an application's role and a stranger's."""
    version = subprocess.run([find_binaries() / "postgres", "--version"], check=True, capture_output=True, text=True)
    major = re.search(r"\d+", version.stdout)
    assert major is not None
    is_small = int(major[0]) >= FIRST_WITH_SETTING
    with EmbeddedServer(settings={"max_notify_queue_pages": "64"} if is_small else {}) as server:
        asyncio.run(_prepare(server.url()))
        yield server


async def _prepare(url: str) -> None:
    await migrations.upgrade(url)
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE ROLE app LOGIN; CREATE ROLE stranger LOGIN")
    await connection.close()
    await grant(url, "app")


@pytest.fixture
def app_url(server: EmbeddedServer) -> str:
    return url_of_role(server.url(), "app")


@pytest.fixture
async def owner(server: EmbeddedServer) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(server.url())
    yield connection
    await connection.close()


@asynccontextmanager
async def pinned(server: EmbeddedServer) -> AsyncIterator[Connection]:
    """A stranger listens, and reads nothing as long as its transaction goes on; another one fills the queue."""
    connection = await asyncpg.connect(url_of_role(server.url(), "stranger"))
    await connection.execute("LISTEN whatever")
    await connection.execute("BEGIN; SELECT 1")
    try:
        await fill(server)
        yield connection
    finally:
        await connection.close()


async def fill(server: EmbeddedServer) -> None:
    connection = await asyncpg.connect(url_of_role(server.url(), "stranger"))
    many = "SELECT pg_notify('whatever', i || repeat('x', 7900)) FROM generate_series(1, 5000) AS i"
    one = "SELECT pg_notify('whatever', repeat('y', 10))"
    for statement in (many, one, one):
        await connection.execute("SELECT pg_notification_queue_usage()")  # else what all have read takes room
        with suppress(asyncpg.ProgramLimitExceededError):
            while True:
                await connection.execute(statement)
    await connection.close()


async def test_sends_wait_until_the_queue_has_room(
    server: EmbeddedServer, app_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def is_logged() -> bool:
        return f"could not send 1 messages, will try again: {FULL}" in caplog.text

    async with (
        pinned(server) as stranger,
        MessageLayer(app_url, heartbeat=0.1) as layer,
        layer.subscribe("room") as subscription,
    ):
        publishing = asyncio.create_task(layer.publish("room", "late"))
        await until(is_logged)
        await stranger.close()
        await within(publishing)
        assert (await within(anext(subscription))).payload == "late"


async def test_send_that_waited_in_vain_says_who_fills_the_queue(server: EmbeddedServer, app_url: str) -> None:
    async with pinned(server) as stranger, MessageLayer(app_url, send_timeout=1) as layer, layer.subscribe("room"):
        # The server names it some seconds apart, to one session of all.
        expected = f"it was not sent .{FULL}.* {stranger.get_server_pid()} "

        async def is_named() -> bool:
            with pytest.raises(DatabaseUnavailable, match=FULL) as raised:
                await layer.publish("room", "refused")
            assert not raised.value.may_have_been_sent
            return re.search(expected, str(raised.value)) is not None

        await until(is_named)


async def test_heartbeats_go_on_and_remove_ended_nodes(
    server: EmbeddedServer, app_url: str, owner: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async def is_removed() -> bool:
        return not await owner.fetchval("SELECT count(*) FROM pgchannels.node WHERE name = 'ended'")

    async with MessageLayer(app_url, heartbeat=0.1) as layer, layer.subscribe("room") as subscription:
        async with pinned(server):
            await owner.execute(
                "INSERT INTO pgchannels.node (id, name, leased_until) VALUES ($1, 'ended', now())", uuid4()
            )
            await until(is_removed)
            await until(lambda: asyncio.sleep(0, FULL in caplog.text))
        await within(layer.publish("room", "after"))
        assert (await within(anext(subscription))).payload == "after"
        assert node_of(layer)._listener.reconnected <= 1


async def test_layer_opens_and_reads_while_the_queue_is_full(server: EmbeddedServer, app_url: str) -> None:
    async with MessageLayer(app_url, heartbeat=0.1) as sender:
        await sender.publish("old", "there before")
        async with pinned(server), MessageLayer(app_url) as layer:
            assert [message.payload for message in await layer.history("old")] == ["there before"]
        async with MessageLayer(app_url) as layer, layer.subscribe("room") as subscription:
            await within(sender.publish("room", "after"))
            assert (await within(anext(subscription))).payload == "after"


async def test_heartbeats_make_room_in_the_queue_for_everybody(
    server: EmbeddedServer, app_url: str, owner: Connection
) -> None:
    async def others_can_notify() -> bool:
        with suppress(asyncpg.ProgramLimitExceededError):
            await owner.execute("NOTIFY elsewhere")
            return True
        return False

    async with pinned(server) as stranger, MessageLayer(app_url, heartbeat=0.1):
        assert not await others_can_notify()
        await stranger.close()
        await until(others_can_notify)


async def publish_until_full(layer: MessageLayer) -> int:
    """Publish messages that begin with 0, 1, …; returns the number of the first that was refused."""
    number = 0
    refusal = None
    while refusal is None:
        try:
            await layer.publish("room", [number, "x" * 5000])
            number += 1
        except DatabaseUnavailable as error:
            refusal = error
    assert FULL in str(refusal)
    return number


async def test_stopped_subscriber_holds_the_queue_no_longer_than_its_lease(
    server: EmbeddedServer, app_url: str, owner: Connection
) -> None:
    async def is_removed() -> bool:
        return not await owner.fetchval("SELECT count(*) FROM pgchannels.node WHERE pid = $1", pid)

    async with (
        MessageLayer(app_url, heartbeat=3600) as stopped,
        MessageLayer(app_url, heartbeat=0.1, send_timeout=1) as layer,
        stopped.subscribe("room", capacity=10_000) as subscription,
    ):
        listening = node_of(stopped)._listener._connection
        assert listening is not None
        pid = listening.get_server_pid()
        transport: Any = getattr(listening, "_transport")  # noqa: B009
        transport.pause_reading()  # as a process that is stopped
        count = await publish_until_full(layer)
        await owner.execute("UPDATE pgchannels.node SET leased_until = now() WHERE pid = $1", pid)
        await until(is_removed)
        await within(layer.publish("room", [count, "there is room"]))
        transport.resume_reading()
        received = [(await within(anext(subscription))).payload[0] for _ in range(count + 1)]
        assert received == list(range(count + 1))


async def test_sender_without_a_node_removes_a_stopped_subscriber_whose_lease_has_ended(
    server: EmbeddedServer, app_url: str, owner: Connection
) -> None:
    layer = MessageLayer(app_url, send_timeout=1)

    async def is_sent() -> bool:
        with suppress(DatabaseUnavailable):
            await layer.publish("room", "there is room")
            return True
        return False

    async with MessageLayer(app_url, heartbeat=3600) as stopped, stopped.subscribe("room", capacity=10_000):
        listening = node_of(stopped)._listener._connection
        assert listening is not None
        transport: Any = getattr(listening, "_transport")  # noqa: B009
        transport.pause_reading()  # as a process that is stopped
        await publish_until_full(layer)
        await owner.execute("UPDATE pgchannels.node SET leased_until = now()")
        await until(is_sent)
        assert await owner.fetchval("SELECT count(*) FROM pgchannels.node") == 0
        transport.resume_reading()
    await layer.close()
