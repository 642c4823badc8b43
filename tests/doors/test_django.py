"""What a Django project meets: messages that Channels cannot dispatch, settings, migrations, other layers' ways."""

import asyncio
import base64
import inspect
import json
import logging
import random
import re
import secrets
import signal
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.testing import ApplicationCommunicator
from websockets.sync.client import ClientConnection, connect

from pgchannels import ConfigurationError, InvalidMessage, LayerClosed, MessageLayer
from pgchannels.django import PostgresChannelLayer
from tests.conftest import new_database, url_of_role
from tests.support.consumers import ChatConsumer, SynchronousChatConsumer
from tests.support.django_databases import connected, django_database, has_tables
from tests.support.django_processes import CommandFailed, Databases, Layers, manage, pytest_django
from tests.support.django_servers import BACKGROUND, CHANNELS, LOOPBACK, environment_of, runworker
from tests.support.django_settings import channel_layers, the_layer
from tests.support.programs import Program, eventually, free_port, running
from tests.support.roads import node_of
from tests.support.snippets import snippet
from tests.support.visitors import heard, visitor
from tests.support.waiting import LIMIT_SECONDS, within

PROJECT = Path(__file__).parent / "project"

# What kills a consumer of Channels: `get_handler_name` raises, or it takes the message for the server's or its own.
DEADLY: dict[str, dict[str, Any]] = {
    "no type": {"text": "hi"},
    "nothing": {},
    "type None": {"type": None},
    "type of a number": {"type": 5},
    "type of a list": {"type": ["chat.message"]},
    "type of bytes": {"type": b"chat.message"},
    "empty type": {"type": ""},
    "underscore": {"type": "_private"},
    "dot": {"type": ".private"},
    "class": {"type": "__class__"},
    "connect": {"type": "websocket.connect"},
    "receive": {"type": "websocket.receive"},
    "receive with text": {"type": "websocket.receive", "text": "{"},
    "disconnect": {"type": "websocket.disconnect"},
    "disconnect with code": {"type": "websocket.disconnect", "code": 1000},
    "disconnect as handler": {"type": "websocket_disconnect", "code": 1000},
    "accept": {"type": "websocket.accept"},
    "request": {"type": "http.request", "body": b""},
    "http disconnect": {"type": "http.disconnect"},
    "startup": {"type": "lifespan.startup"},
    "shutdown": {"type": "lifespan.shutdown"},
    "dispatch": {"type": "dispatch"},
    "scope": {"type": "scope"},
    "channel": {"type": "channel.name"},
}
DEADLY_TO_WEBSOCKETS = DEADLY | {
    kind: {"type": kind}
    for kind in (
        "close",
        "accept",
        "connect",
        "groups",
        "receive_json",
        "send.json",
        "websocket.close",
        "websocket.send",
    )
}


@pytest.fixture
async def configured(database_url: str) -> AsyncIterator[PostgresChannelLayer]:
    """The layer of the settings."""
    with channel_layers(url=database_url):
        yield the_layer()
        await the_layer().close()


def unreadable(layer: PostgresChannelLayer) -> int:
    """How many messages its node has passed over."""
    node = node_of(layer)
    return node.receiver.payloads.unreadable


@pytest.mark.parametrize("consumer", [ChatConsumer, SynchronousChatConsumer])
@pytest.mark.parametrize("payload", DEADLY_TO_WEBSOCKETS.values(), ids=DEADLY_TO_WEBSOCKETS.keys())
async def test_consumers_of_a_room_survive_what_channels_cannot_dispatch(
    configured: PostgresChannelLayer,
    database_url: str,
    consumer: Any,
    payload: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with MessageLayer(database_url) as layer, visitor(consumer) as one, visitor(consumer) as two:
        for _ in range(3):
            await layer.publish("room", payload)
        await layer.publish("room", {"type": "chat.message", "text": "good"})
        for browser in (one, two):
            assert await heard(browser) == {"said": "good"}
        assert unreadable(configured) == 2 * 3
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "topic:asgi:room" in line
    assert "'type'" in line
    assert "private" not in line


class Worker(AsyncConsumer):
    """What a channel of its own gets."""

    async def work(self, message: dict[str, Any]) -> None:
        await self.send({"type": "done", "channel": self.channel_name})


class SynchronousWorker(SyncConsumer):
    """The same, written for threads."""

    def work(self, message: dict[str, Any]) -> None:
        self.send({"type": "done", "channel": self.channel_name})


@pytest.mark.parametrize("consumer", [Worker, SynchronousWorker])
async def test_consumer_survives_what_is_sent_to_its_own_channel(
    configured: PostgresChannelLayer, database_url: str, consumer: Any
) -> None:
    communicator = ApplicationCommunicator(consumer.as_asgi(), {"type": "test"})  # type: ignore[no-untyped-call]
    await communicator.send_input({"type": "work"})
    channel = (await communicator.receive_output(LIMIT_SECONDS))["channel"]
    async with MessageLayer(database_url) as layer:
        for payload in (*DEADLY.values(), "text", None):
            await layer.send(channel, payload)
        await configured.send(channel, {"type": "work"})
    assert await communicator.receive_output(LIMIT_SECONDS) == {"type": "done", "channel": channel}
    assert unreadable(configured) == len(DEADLY) + 2
    communicator.stop()
    await within(asyncio.wait([communicator.future]))


async def test_who_receives_without_channels_gets_what_was_sent_to_the_channel(
    configured: PostgresChannelLayer,
) -> None:
    # As from Channels' other layers: it is a group's message, or one for a consumer, that must have a type.
    own = await configured.new_channel()
    for channel in (own, "jobs"):
        await configured.group_add("room", channel)
        for payload in DEADLY.values():
            await configured.send(channel, payload)
            assert await within(configured.receive(channel)) == payload
    await configured.group_send("room", {"text": "for nobody"})
    await configured.group_send("room", {"type": "last"})
    for channel in (own, "jobs"):
        assert await within(configured.receive(channel)) == {"type": "last"}


async def test_loss_of_what_cannot_be_dispatched_is_told_to_those_who_want_to_know(database_url: str) -> None:
    with channel_layers(url=database_url, on_gap="messages.lost"):
        channel = await the_layer().new_channel()
        await the_layer().group_add("room", channel)
        await the_layer().group_send("room", {"text": "hi"})
        notice = {"type": "messages.lost", "reason": "unreadable", "count": 1}
        assert await within(the_layer().receive(channel)) == notice
        await the_layer().close()


@pytest.mark.parametrize("kind", ["_lost", "websocket.disconnect", "dispatch"])
@pytest.mark.parametrize("option", ["on_gap", "on_disconnect", "on_reconnect"])
def test_notice_that_would_end_consumers_is_refused(option: str, kind: str) -> None:
    notice: dict[str, Any] = {option: kind}
    with pytest.raises(ConfigurationError, match=rf"{option}: its 'type'"):
        PostgresChannelLayer("postgresql://127.0.0.1:1/shop", **notice)


@contextmanager
def daphne(url: str, *options: str) -> Iterator[tuple[int, Program]]:
    """The port of a daphne process that serves the project, and the process."""
    port = free_port()
    command = ["daphne", "--bind", LOOPBACK, "--port", str(port), *options, "asgi:application"]
    with running(command, folder=PROJECT, environment=environment_of(url)) as program:
        program.line("Listening on TCP address")
        yield port, program


def ask_for_websocket(port: int, path: str) -> socket.socket:
    """A client that begins a handshake, and waits for no answer."""
    client = socket.create_connection((LOOPBACK, port))
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    client.sendall(
        f"GET /{path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return client


def abort(client: socket.socket) -> None:
    """End the connection by a reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def hosted_rooms(url: str) -> list[str]:
    """The groups that some node hosts."""

    async def hosted() -> list[str]:
        async with connected(url) as connection:
            rows = await connection.fetch("SELECT address FROM pgchannels.subscription WHERE address LIKE 'topic:%'")
        return [row["address"] for row in rows]

    return asyncio.run(hosted())


def visit(port: int, path: str = "visit/") -> AbstractContextManager[ClientConnection]:
    """A browser in the room."""
    return connect(f"ws://{LOOPBACK}:{port}/{path}", open_timeout=LIMIT_SECONDS, close_timeout=LIMIT_SECONDS)


def test_browsers_under_daphne_stay_in_a_room_with_messages_that_channels_cannot_dispatch(database_url: str) -> None:
    layer = MessageLayer(database_url)
    with daphne(database_url) as (port, server), visit(port) as one, visit(port, "visit/synchronous/") as two:
        layer.sync.publish_many([("room", payload) for payload in DEADLY.values()])
        layer.sync.publish("room", {"type": "chat.message", "text": "good"})
        for browser in (one, two):
            assert json.loads(browser.recv(LIMIT_SECONDS)) == "good"
    assert server.text().count("passed over message") == 1
    assert "Traceback" not in server.text()


def test_rooms_of_clients_that_abort_their_handshakes_under_daphne_are_released(
    owner_url: str, database_url: str
) -> None:
    layer = MessageLayer(database_url)
    with daphne(database_url) as (port, server):
        for begin in range(0, 1500, 250):  # a process may have too few files for all at once
            clients = [ask_for_websocket(port, f"rooms/{number}/") for number in range(begin, begin + 250)]
            for client in clients:
                abort(client)
        with visit(port) as browser:
            layer.sync.publish("room", {"type": "chat.message", "text": "still here"})
            assert json.loads(browser.recv(LIMIT_SECONDS)) == "still here"
        eventually(lambda: not hosted_rooms(owner_url))
    assert not re.search(r"Traceback|WARNING|ERROR|rror:", server.text())


def test_rooms_of_consumers_that_daphne_cancels_are_released(owner_url: str, database_url: str) -> None:
    with daphne(database_url, "--application-close-timeout", "1") as (port, server):
        clients = [ask_for_websocket(port, f"waiting/{number}/") for number in range(20)]
        eventually(lambda: server.text().count("waiting\n") == 20)
        assert len(hosted_rooms(owner_url)) == 20
        for client in clients:
            abort(client)
        eventually(lambda: not hosted_rooms(owner_url))


def test_workers_go_on_after_jobs_without_a_type(database_url: str) -> None:
    layer = MessageLayer(database_url)
    with runworker(*CHANNELS, folder=BACKGROUND, url=database_url) as worker:
        for channel in CHANNELS:
            for payload in ({"id": 7}, [7], *DEADLY.values()):
                layer.sync.send(channel, payload)
        layer.sync.send("thumbnails-generate", {"type": "generate", "id": 1})
        layer.sync.send("thumbnails-delete", {"type": "delete", "id": 2})
        eventually(lambda: "generated 1." in worker.text() and "deleted 2." in worker.text())
        worker.process.send_signal(signal.SIGTERM)
        worker.end()
    assert worker.text().count("passed over message") == 1
    assert "queue:asgi:thumbnails-" in worker.text()
    assert "Traceback" not in worker.text()


# What Channels' other layers answer: their own test suites, and their sources, ask for it.


async def test_no_encryption_keys_are_none(database_url: str) -> None:
    # What channels_postgres and channels_redis have as their default.
    choices: tuple[Any, ...] = (None, [], ())
    for keys in choices:
        layer = PostgresChannelLayer(database_url, symmetric_encryption_keys=keys)
        await layer.send("jobs", {"type": "hello"})
        assert await within(layer.receive("jobs")) == {"type": "hello"}
        await layer.close()
        async with MessageLayer(database_url, symmetric_encryption_keys=keys) as plain:
            await plain.publish("room", "hello")


@pytest.mark.parametrize("verb", ["send", "group_send"])
@pytest.mark.parametrize("message", [{"type": "hello", "__asgi_channel__": "specific.x!y"}, "hello", None, ["hello"]])
async def test_message_that_no_layer_takes_is_refused_as_by_the_others(
    configured: PostgresChannelLayer, verb: str, message: Any
) -> None:
    with pytest.raises(AssertionError, match=r"dict|__asgi_channel__") as refused:
        await getattr(configured, verb)("room", message)
    assert isinstance(refused.value, InvalidMessage)
    with pytest.raises(InvalidMessage):
        await asyncio.to_thread(getattr(configured.sync, verb), "room", message)


@pytest.mark.parametrize("name", ["not-client-prefix!local_part", "specific.elsewhere!x", "specific.elsewhere!"])
async def test_foreign_channel_is_refused_as_by_the_others(configured: PostgresChannelLayer, name: str) -> None:
    # channels_redis, channels_postgres: test_reject_bad_client_prefix
    with pytest.raises(AssertionError, match="made in another event loop or process") as refused:
        await within(configured.receive(name))
    assert isinstance(refused.value, LayerClosed)


# The commands and the errors know the database of the layer.

SENDING = (
    "from channels.layers import get_channel_layer; "
    "get_channel_layer({name!r}).sync.group_send('room', {{'type': 'chat.message'}})"
)


def sending(name: str = "default") -> tuple[str, ...]:
    """The command of a project that sends by one of its layers."""
    return ("shell", "-c", SENDING.format(name=name))


async def words(databases: Databases, *arguments: str, **settings: Any) -> str:
    """What a command of the project says that complains."""
    with pytest.raises(CommandFailed) as said:
        await manage(databases, *arguments, **settings)
    return str(said.value)


def layers_of(url: str, name: str = "default", **config: Any) -> Layers:
    """The settings of a project's one layer, as the guide for channels_redis has it."""
    return {name: {"CONFIG": {"url": url} | config}}


@pytest.fixture
def databases(server_url: str) -> Iterator[Databases]:
    """The own database of a project, beside that of its layer."""
    with new_database(server_url, "TEMPLATE template0") as url:
        yield {"default": django_database(url)}


@pytest.mark.parametrize("schema", ["pgchannels", "chat"])
async def test_guide_of_channels_redis_leads_to_tables_in_the_database_of_its_url(
    empty_database_url: str, databases: Databases, schema: str
) -> None:
    layers = layers_of(empty_database_url, schema=schema)
    for arguments in (("migrate",), ("check", "--database", "default"), sending()):
        text = await words(databases, *arguments, layers=layers)
        assert "`manage.py pgchannels upgrade`" in text
        assert "run `manage.py migrate" not in text
    assert f"no pgchannels tables in the schema '{schema}'" in text
    [_, _, *command] = snippet("docs/how-to/migrate-from-channels-redis.md", "pgchannels upgrade", "sh").split()
    await manage(databases, *command, layers=layers)
    assert await has_tables(empty_database_url, schema=schema)
    assert "no issues" in await manage(databases, "check", "--database", "default", layers=layers)
    await manage(databases, *sending(), layers=layers)
    assert "No migrations to apply" in await manage(databases, "migrate", layers=layers)


async def test_url_of_a_database_that_has_an_alias_is_that_alias(empty_database_url: str, databases: Databases) -> None:
    databases |= {"messages": django_database(empty_database_url)}
    layers = layers_of(empty_database_url)
    for arguments in (("check", "--database", "messages"), sending()):
        assert "`manage.py migrate --database messages`" in await words(databases, *arguments, layers=layers)
    assert "no issues" in await manage(databases, "check", "--database", "default", layers=layers)
    await manage(databases, "migrate", "--database", "messages", layers=layers)
    await manage(databases, *sending(), layers=layers)
    assert "no issues" in await manage(databases, "check", "--database", "messages", layers=layers)


async def test_second_layer_with_a_url_has_a_command_of_its_own(
    owner_url: str, empty_database_url: str, databases: Databases
) -> None:
    layers = layers_of(owner_url) | layers_of(empty_database_url, "archive")
    command = ("pgchannels", "upgrade", "--layer", "archive")
    for arguments in (("check", "--database", "default"), sending("archive")):
        assert f"`manage.py {' '.join(command)}`" in await words(databases, *arguments, layers=layers)
    await manage(databases, *command, layers=layers)
    await manage(databases, *sending("archive"), layers=layers)
    assert "no issues" in await manage(databases, "check", "--database", "default", layers=layers)
    for wrong, text in (
        (("--layer", "nowhere"), "'nowhere' is no entry of CHANNEL_LAYERS that uses pgchannels"),
        (("--layer", "archive", "--database", "default"), "give --database or --layer, not both"),
    ):
        assert text in await words(databases, "pgchannels", "upgrade", *wrong, layers=layers)


async def test_migrate_makes_the_tables_for_tests_of_a_layer_with_a_url(databases: Databases) -> None:
    layers = layers_of("postgresql://127.0.0.1:1/shop")
    layers["default"]["TEST_CONFIG"] = {"database": "default"}
    said = await words(databases, "migrate", layers=layers)
    assert "pgchannels.W006" in said  # the database of the url is not there
    assert "hunter2" not in said
    await manage(databases, *sending())


async def test_error_of_a_project_without_the_app_says_so(empty_database_url: str, databases: Databases) -> None:
    text = await words(databases, *sending(), layers=layers_of(empty_database_url), apps="channels")
    assert "add 'pgchannels.django' to INSTALLED_APPS" in text
    assert "`pgchannels upgrade --url …`" in text


async def test_missing_app_is_logged_at_first_use_and_found_by_a_check_that_could_not_import_it(
    owner_url: str, databases: Databases
) -> None:
    layers = layers_of(owner_url)
    text = await words(databases, *sending(), layers=layers, apps="channels")
    assert text.count("pgchannels.W002: 'pgchannels.django' is not in INSTALLED_APPS") == 1
    checking = "from channels.layers import get_channel_layer; get_channel_layer(); " + (
        "from django.core.management import call_command; call_command('check')"
    )
    assert "pgchannels.W002" in await words(databases, "shell", "-c", checking, layers=layers, apps="channels")


# Migrations, and projects whose tests do without them.


async def test_migrate_needs_no_create_on_the_database_where_the_schema_exists(
    empty_database_url: str, application_role: str
) -> None:
    async with connected(empty_database_url) as connection:
        await connection.execute(f"CREATE SCHEMA pgchannels AUTHORIZATION {application_role}")
        await connection.execute(f"GRANT CREATE ON SCHEMA public TO {application_role}")
        name = await connection.fetchval("SELECT current_database()")
        can_create = "SELECT has_database_privilege($1, $2, 'CREATE')"
        assert not await connection.fetchval(can_create, application_role, name)
    databases = {"default": django_database(url_of_role(empty_database_url, application_role))}
    await manage(databases, "migrate")
    await manage(databases, *sending())
    await manage(databases, "pgchannels", "downgrade", "base", "--yes")
    await manage(databases, "migrate", "pgchannels", "zero", quiet=False)  # it finds no tables
    await manage(databases, "migrate")
    await manage(databases, *sending())


async def test_tests_of_a_project_without_migrations_have_the_tables(
    empty_database_url: str, databases: Databases
) -> None:
    [database] = databases.values()
    database["TEST"] = {"NAME": f"test_{database['NAME']}"}
    for options in (("--reuse-db",), ("--reuse-db",), ("--create-db",)):
        assert "5 passed" in await pytest_django(databases, "--no-migrations", *options, "pytest_checks.py")
    database["TEST"] |= {"MIGRATE": False}
    await manage(databases, "test", "--parallel", "2", "views_checks", quiet=False)


async def test_layer_works_beside_tests_of_migrations(databases: Databases) -> None:
    [database] = databases.values()
    database["TEST"] = {"NAME": f"test_{database['NAME']}"}
    assert "2 passed" in await pytest_django(databases, "migrator_checks.py")


# What `manage.py check` says.


@pytest.mark.parametrize("engine", ["django.db.backends.sqlite3", "django.db.backends.dummy"])
async def test_hint_never_repeats_the_entry_that_fails(engine: str, databases: Databases) -> None:
    databases = {"default": {"ENGINE": engine, "NAME": "shop"}, "messages": databases["default"]}
    config = {"default": {"CONFIG": {"database": "default"}}}
    said = await words(databases, "check", layers=config)
    assert "pgchannels.E003" in said
    assert "Correct DATABASES['default'], or name another database here: 'CONFIG': {'database': 'messages'}." in said
    assert "'database': 'default'" not in said
    databases.pop("messages")
    said = await words(databases, "check", layers=config)
    assert "'CONFIG': {'url': 'postgresql://user:password@host/name'}." in said
    assert "'database': 'default'" not in said


async def test_hint_for_a_good_database_with_other_options_names_these(databases: Databases) -> None:
    said = await words(databases, "check", layers={"default": {"CONFIG": {"database": "default", "capacity": 0}}})
    assert "capacity" in said
    assert "The database 'default' can be used: correct or remove the other options of this entry." in said


# What the test suites of channels_redis and channels_postgres do.


def test_channel_of_one_async_to_sync_cannot_be_received_from_in_another(database_url: str) -> None:
    # channels_redis, channels_postgres: test_double_receive. Here a channel belongs to its event loop.
    with channel_layers(url=database_url):
        layer = the_layer()
        channel = async_to_sync(layer.new_channel)()
        with pytest.raises(LayerClosed, match=r"in one function for async_to_sync; or receive from .* a work queue"):
            async_to_sync(layer.receive)(channel)

        async def ask() -> dict[str, Any]:
            reply_channel = await layer.new_channel()
            await layer.send(reply_channel, {"type": "reply"})
            reply: dict[str, Any] = await layer.receive(reply_channel)
            return reply

        assert async_to_sync(ask)() == {"type": "reply"}
        async_to_sync(layer.send)("replies", {"type": "reply"})
        assert async_to_sync(layer.receive)("replies") == {"type": "reply"}
        layer.sync.close()


def test_loop_of_its_own_receives_what_others_send(database_url: str) -> None:
    # channels_redis: test_send_receive_sync, test_multi_send_receive_sync
    with channel_layers(url=database_url), closing(asyncio.new_event_loop()) as loop:
        layer = the_layer()
        channel = loop.run_until_complete(layer.new_channel())
        for number in range(3):
            async_to_sync(layer.send, force_new_loop=True)(channel, {"type": "message", "number": number})
        received = [loop.run_until_complete(layer.receive(channel)) for _ in range(3)]
        assert [message["number"] for message in received] == [0, 1, 2]
        loop.run_until_complete(layer.close())


async def test_member_takes_as_many_messages_of_a_group_as_it_has_room_for(database_url: str) -> None:
    # channels_redis: test_group_send_capacity_multiple_channels
    layer = PostgresChannelLayer(database_url, capacity=3)
    one, two = await layer.new_channel(), await layer.new_channel("channel_2")
    for channel in (one, two):
        await layer.group_add("test-group", channel)
    await layer.send(two, {"type": "message.0"})
    for number in (1, 2, 3):
        await layer.group_send("test-group", {"type": f"message.{number}"})
    for channel, numbers in ((one, (1, 2, 3)), (two, (0, 1, 2))):
        received = [(await within(layer.receive(channel)))["type"] for _ in range(3)]
        assert received == [f"message.{number}" for number in numbers]
    await layer.send(two, {"type": "last"})
    assert await within(layer.receive(two)) == {"type": "last"}
    await layer.close()


async def test_cancelled_receives_neither_block_nor_lose(configured: PostgresChannelLayer) -> None:
    # channels_redis, channels_postgres: test_receive_cancel
    channel = await configured.new_channel()
    received = 0
    for number in range(50):
        await configured.send(channel, {"type": "test.message"})
        task = asyncio.ensure_future(configured.receive(channel))
        await asyncio.sleep(number / 10_000)
        task.cancel()
        await asyncio.wait([task])
        received += not task.cancelled()
    for _ in range(received, 50):
        assert await within(configured.receive(channel)) == {"type": "test.message"}


async def test_names_of_channels_do_not_follow_the_seed_of_random(configured: PostgresChannelLayer) -> None:
    # channels_redis, channels_postgres: test_random_reset__channel_name
    names = set()
    for _ in range(2):
        random.seed(1)
        names.add(await configured.new_channel())
    assert len(names) == 2
    assert all(map(inspect.iscoroutinefunction, (configured.send, configured.receive, configured.group_send)))
    # test_discard_before_add, test_non_existent_group
    await configured.group_discard("test-group", names.pop())
    await configured.group_send("non-existent", {"type": "message.1"})
