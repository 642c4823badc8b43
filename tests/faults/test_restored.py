"""A database that is put back under living layers: what they are told, and that they receive what comes then."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final, Protocol, TypeAlias

import asyncpg
import pytest

from pgchannels import Gap, GapReason, MessageLayer, PgChannelsError, Position, Subscription
from pgchannels.database import migrations
from pgchannels.django import PostgresChannelLayer
from pgchannels.embedded import EmbeddedServer
from tests.support.roads import node_of
from tests.support.waiting import LIMIT_SECONDS, POLL_SECONDS, until, within

Send: TypeAlias = Callable[[str, str], Awaitable[Position]]

HEARTBEAT_SECONDS: Final = 0.3
SETTINGS: Final = {"recovery_init_sync_method": "syncfs"}  # a crash takes less time than with a flush of each file
MESSAGES: Final = 20
CRASH: Final = Gap(GapReason.CRASH, None)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A durable server with the schema."""
    with EmbeddedServer(durable=True, settings=SETTINGS) as server:
        asyncio.run(migrations.upgrade(server.url()))
        yield server


class Backup(Protocol):
    """A way to put the database back."""

    async def save(self, server: EmbeddedServer) -> None: ...

    async def restore(self, server: EmbeddedServer) -> None: ...


class DroppedSchema:
    """Tables that are dropped and made anew."""

    async def save(self, server: EmbeddedServer) -> None:
        """There is nothing to save."""

    async def restore(self, server: EmbeddedServer) -> None:
        await execute(server, "DROP SCHEMA pgchannels CASCADE")
        await migrations.upgrade(server.url())


class Dump:
    """A dump by `pg_dump`, with what was in the log."""

    async def save(self, server: EmbeddedServer) -> None:
        what = ("--schema=pgchannels", "--dbname=postgres")
        await run(server, "pg_dump", "--format=custom", f"--file={self._file(server)}", *what)

    async def restore(self, server: EmbeddedServer) -> None:
        await execute(server, "DROP SCHEMA pgchannels CASCADE")
        await run(server, "pg_restore", "--single-transaction", "--dbname=postgres", self._file(server))

    def _file(self, server: EmbeddedServer) -> str:
        return str(server.socket_directory / "dump")


class DumpInSteps(Dump):
    """A dump that takes its time: tables, rows and indexes come one after another, while nodes try to register."""

    async def restore(self, server: EmbeddedServer) -> None:
        await execute(server, "DROP SCHEMA pgchannels CASCADE")
        for section in ("pre-data", "data"):
            await self._restore(server, f"--section={section}")
            with pytest.raises(asyncpg.InvalidColumnReferenceError):  # there is no index
                await execute(server, "SELECT pgchannels.extent()")
        await self._restore(server, "--section=post-data")

    async def _restore(self, server: EmbeddedServer, *what: str) -> None:
        await run(server, "pg_restore", *what, "--dbname=postgres", self._file(server))


class DumpOverTables(Dump):
    """A dump that replaces the tables at once, while everybody stays connected."""

    async def restore(self, server: EmbeddedServer) -> None:
        what = ("--clean", "--single-transaction", "--dbname=postgres")
        await run(server, "pg_restore", *what, self._file(server))


class DataDirectory:
    """A copy of the data directory, from which the server recovers as from a crash."""

    async def save(self, server: EmbeddedServer) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(copy, server.data_directory, f"{server.data_directory}.copy")
        await asyncio.to_thread(server.start)

    async def restore(self, server: EmbeddedServer) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(shutil.rmtree, server.data_directory)
        await asyncio.to_thread(copy, f"{server.data_directory}.copy", server.data_directory)
        await asyncio.to_thread(server.start)


BACKUPS: Final = [DroppedSchema(), Dump(), DumpInSteps(), DumpOverTables(), DataDirectory()]
every_backup = pytest.mark.parametrize("backup", BACKUPS, ids=lambda backup: type(backup).__name__)


def copy(origin: object, destination: object) -> None:
    """Copy a directory with the owners of all that is in it."""
    subprocess.run(["cp", "--archive", str(origin), str(destination)], check=True)


async def run(server: EmbeddedServer, program: str, *arguments: str) -> None:
    where = (f"--host={server.socket_directory}", f"--port={server.port}", "--username=postgres")
    command = [str(server.binaries / program), *where, *arguments]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)


async def execute(server: EmbeddedServer, statement: str) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def age(server: EmbeddedServer, layer: MessageLayer, *, crashes: int = 2) -> Position:
    """Let positions come that the restored log does not know; returns the last one."""
    for number in range(crashes):
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await surely(layer.publish, "room", f"forgotten behind crash {number}")
    positions = [(await surely(layer.publish, "room", f"forgotten {number}"))[0] for number in range(MESSAGES)]
    return positions[-1]


async def surely(send: Send, target: str, text: str) -> tuple[Position, str]:
    """Send until it has worked once, something else each time; returns what was sent at last, and where it stands."""
    async with asyncio.timeout(LIMIT_SECONDS):
        for attempt in count():
            payload = f"{text}, attempt {attempt}"
            with suppress(PgChannelsError):
                return await send(target, payload), payload
            await asyncio.sleep(POLL_SECONDS)
    raise AssertionError("unreachable")


def new_layer(server: EmbeddedServer) -> MessageLayer:
    return MessageLayer(server.url(), heartbeat=HEARTBEAT_SECONDS)


@every_backup
async def test_living_subscriber_is_told_of_a_crash_and_gets_everything_that_is_published_then(
    backup: Backup, server: EmbeddedServer
) -> None:
    events: list[object] = []
    async with (
        new_layer(server) as layer,
        new_layer(server) as other,
        layer.subscribe("room", on_gap=events.append) as subscription,
        asyncio.TaskGroup() as receiving,
    ):
        receiving.create_task(receive_into(events, subscription, until="last"))
        await other.publish("room", "kept")
        await backup.save(server)
        await age(server, other)
        _, forgotten = await surely(other.publish, "room", "the last to be forgotten")
        await until(lambda: has(forgotten, events))
        known = len(events)
        await backup.restore(server)
        await until(lambda: has(CRASH, events[known:]))
        after = [(await surely(other.publish, "room", f"after {number}"))[1] for number in range(MESSAGES)]
        await within(other.publish("room", "last"))
    messages = [event for event in events if not isinstance(event, Gap)]
    assert [message for message in messages if message in after] == after
    assert len(messages) == len(set(messages)), "some came twice"


async def receive_into(events: list[object], subscription: Subscription, *, until: str) -> None:
    while not events or events[-1] != until:
        events.append((await within(anext(subscription))).payload)


async def has(event: object, events: Collection[object]) -> bool:
    return event in events


@pytest.mark.parametrize(
    ("backup", "crashes", "many"),
    [
        pytest.param(DroppedSchema(), 2, 1, id="DroppedSchema, epochs ahead of the log"),
        pytest.param(DataDirectory(), 2, 1, id="DataDirectory, epochs ahead of the log"),
        pytest.param(Dump(), 2, 1, id="Dump, epochs ahead of the log"),
        pytest.param(Dump(), 0, 1, id="Dump, ahead of the log"),
        pytest.param(Dump(), 0, 5 * MESSAGES, id="Dump, overtaken by the log"),
    ],
)
async def test_position_from_before_is_a_gap_and_everything_that_was_published_then(
    backup: Backup, server: EmbeddedServer, crashes: int, many: int
) -> None:
    async with new_layer(server) as layer:
        await layer.publish("room", "kept")
        await backup.save(server)
        since = await age(server, layer, crashes=crashes)
    await backup.restore(server)
    events: list[object] = []
    async with new_layer(server) as layer:
        after = [f"after {number}" for number in range(many)]
        for payload in after:
            await layer.publish("room", payload)
        async with layer.subscribe("room", since=since, on_gap=events.append) as subscription:
            await layer.publish("room", "last")
            await within(receive_into(events, subscription, until="last"))
    assert events[0] == CRASH
    assert [event for event in events[1:] if event != "kept"] == [*after, "last"]


@pytest.mark.parametrize("kind", ["channel", "queue"])
@every_backup
async def test_living_receiver_is_told_of_a_crash_and_gets_what_is_sent_then(
    backup: Backup, server: EmbeddedServer, kind: str
) -> None:
    async with new_layer(server) as layer, new_layer(server) as other:
        target = await layer.new_channel() if kind == "channel" else "jobs"
        await other.send(target, "before")
        assert await within(layer.receive(target)) == "before"
        await backup.save(server)
        await age(server, other)
        _, waiting = await surely(other.send, target, "drained")
        assert await within(receive_passing_over_gaps(layer, target)) == waiting
        told: list[Gap] = []
        receiving = asyncio.create_task(layer.receive(target, on_gap=told.append))
        if kind == "queue":  # a call that finds no tables raises an error that says so
            await until(lambda: asyncio.sleep(0, node_of(layer).receiver.hosting.hosts(f"queue:asgi:{target}")))
        await backup.restore(server)
        await until(lambda: has(CRASH, told))
        _, after = await surely(other.send, target, "after")
        assert await within(receiving) == after


async def receive_passing_over_gaps(layer: MessageLayer, channel: str) -> object:
    return await layer.receive(channel, on_gap=lambda _: None)


@every_backup
async def test_member_that_joined_by_itself_is_told_of_a_crash_and_gets_what_is_sent_to_its_group_then(
    backup: Backup, server: EmbeddedServer
) -> None:
    async with crowd(server) as layer, new_layer(server) as other:
        channel = await layer.new_channel()
        await layer.group_add("crowd", channel)
        await other.publish("crowd", {"type": "before"})
        assert await receive_type(layer, channel, but_not="gap") == "before"
        await backup.save(server)
        await age(server, other)
        await surely(lambda target, _: other.publish(target, {"type": "drained"}), "crowd", "")
        assert await receive_type(layer, channel, but_not="gap") == "drained"
        await backup.restore(server)
        assert await receive_type(layer, channel, but_not="drained") == "gap"
        await surely(lambda target, _: other.publish(target, {"type": "after"}), "crowd", "")
        assert await receive_type(layer, channel, but_not="gap") == "after"


@asynccontextmanager
async def crowd(server: EmbeddedServer) -> AsyncIterator[PostgresChannelLayer]:
    """A layer of Channels."""
    layer = PostgresChannelLayer(server.url(), on_gap="gap", heartbeat=HEARTBEAT_SECONDS)
    try:
        yield layer
    finally:
        await layer.close()


async def receive_type(layer: PostgresChannelLayer, channel: str, *, but_not: str) -> str:
    """The type of the next message that is not of this one."""
    while (message := await within(layer.receive(channel)))["type"] == but_not:
        pass
    return str(message["type"])
