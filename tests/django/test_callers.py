"""Every place of a project from which something is sent: servers, threads, forks, commands, signals."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from urllib.request import urlopen

import asyncpg
import pytest
from websockets.sync.client import connect

from pgchannels import MessageLayer, Subscription
from tests.django.talking import texts_of
from tests.support.django_databases import connection_count
from tests.support.django_servers import HERE, daphne, manage, runserver, script, uvicorn
from tests.support.waiting import LIMIT_SECONDS, until, within

PROJECT = HERE / "callers"
CONNECTIONS_OF_A_PROCESS = 3

Serve = Callable[..., AbstractContextManager[int]]
SERVERS: dict[str, Serve] = {
    "daphne": partial(daphne, "news.asgi:application"),
    "uvicorn": partial(uvicorn, "news.asgi:application"),
    "runserver": runserver,
}
WITH_WEBSOCKETS = ("daphne", "uvicorn")


@pytest.fixture
async def room(owner_url: str) -> AsyncIterator[Subscription]:
    """What everybody sends to."""
    async with MessageLayer(owner_url) as layer, layer.subscribe("room") as subscription:
        yield subscription


async def run(name: str, url: str) -> None:
    """Run a script of the project, which must not say anything."""
    assert await asyncio.to_thread(script, name, folder=PROJECT, url=url, settings="news.settings") == ""


async def sessions(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """How many sessions this database has had, those of today included once they have ended."""
    query = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    return int(await connection.fetchval(query))


@pytest.mark.parametrize("server", WITH_WEBSOCKETS)
def test_asynchronous_and_synchronous_consumers_of_a_server_hear_each_other(server: str, database_url: str) -> None:
    with SERVERS[server](folder=PROJECT, url=database_url) as port:
        addresses = [f"ws://127.0.0.1:{port}/{kind}/" for kind in ("async", "sync")]
        with connect(addresses[0]) as one, connect(addresses[1]) as other:
            for speaker in (one, other):
                speaker.send(json.dumps("hello"))
                for listener in (one, other):
                    assert json.loads(listener.recv(timeout=LIMIT_SECONDS)) == {"said": "hello"}
            assert asyncio.run(connection_count(database_url)) <= CONNECTIONS_OF_A_PROCESS


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("server", SERVERS)
async def test_views_send_from_many_requests_at_once_with_few_connections(
    server: str, kind: str, owner_url: str, room: Subscription
) -> None:
    of_the_test = await connection_count(owner_url)

    def ask(port: int, number: int) -> None:
        with urlopen(f"http://127.0.0.1:{port}/{kind}/{number}/", timeout=LIMIT_SECONDS) as answer:
            assert answer.status == 200

    def ask_all() -> None:
        with SERVERS[server](folder=PROJECT, url=owner_url) as port, ThreadPoolExecutor(8) as people:
            list(people.map(partial(ask, port), range(100)))
            assert asyncio.run(connection_count(owner_url)) <= of_the_test + CONNECTIONS_OF_A_PROCESS

    await asyncio.to_thread(ask_all)
    assert sorted(await texts_of(room, 100)) == sorted(str(number) for number in range(100))


async def test_thousand_messages_from_ten_threads_take_the_sessions_of_one_sender_and_leave_no_warning(
    owner_url: str, room: Subscription, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    of_the_test = await connection_count(owner_url)
    before = await sessions(connection)
    await run("threads.py", owner_url)

    async def has_ended() -> bool:
        return await connection_count(owner_url) == of_the_test

    await until(has_ended)
    texts = await texts_of(room, 1000)
    for thread in range(10):
        assert [number for sender, number in texts if sender == thread] == list(range(100))
    assert await sessions(connection) - before <= CONNECTIONS_OF_A_PROCESS


async def test_message_of_a_signal_goes_out_when_the_transaction_is_committed(
    owner_url: str, room: Subscription
) -> None:
    saving = (
        "from django.db import transaction; from news.models import Article; from news.sending import send; "
        "article = lambda title: Article.objects.create(title=title)\n"
        "with transaction.atomic(): article('one'); send('before the commit')\n"
        "with transaction.atomic(): article('taken back'); transaction.set_rollback(True)\n"
        "article('two')"
    )
    await asyncio.to_thread(manage, "migrate", "--run-syncdb", folder=PROJECT, url=owner_url)
    await asyncio.to_thread(manage, "shell", "-c", saving, folder=PROJECT, url=owner_url)
    assert await texts_of(room, 3) == ["before the commit", "one", "two"]


async def test_management_command_sends_and_ends(owner_url: str, room: Subscription) -> None:
    assert await asyncio.to_thread(manage, "announce", "one", "two", folder=PROJECT, url=owner_url) == ""
    assert await texts_of(room, 2) == ["one", "two"]


async def test_children_of_a_fork_send_and_so_does_their_parent(owner_url: str, room: Subscription) -> None:
    await run("prefork.py", owner_url)
    texts: list[Any] = await texts_of(room, 42)
    numbers = [number for _, number in texts]
    assert sorted(numbers[:20]) == list(range(20))
    assert numbers[20] == "parent"
    assert sorted(numbers[21:41]) == list(range(20))
    assert numbers[41] == "parent again"


async def test_event_loop_for_each_message_sends_in_order_and_leaves_no_warning(
    owner_url: str, room: Subscription
) -> None:
    await run("loops.py", owner_url)
    assert await within(texts_of(room, 100)) == list(range(100))
