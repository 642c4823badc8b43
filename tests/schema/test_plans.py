"""Every statement on the road of a message finds its rows by an index, in an empty log and in a large one."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import md5
from itertools import chain
from math import inf
from secrets import token_hex
from types import ModuleType
from typing import Any, Final
from unittest.mock import patch
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import Executable, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pgchannels import ChannelFull, MessageLayer
from pgchannels.codec import Codec
from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.database.statements import measuring, membership, nodes, queues, reading, retention, sending
from pgchannels.database.tables import LARGEST_BATCH
from tests.conftest import new_database
from tests.schema.plans import LARGE_TABLES, Explained, Plan
from tests.support.waiting import LIMIT_SECONDS, within

MESSAGES: Final = 1_000_000
MOST_ROWS: Final = reading.PAGE_ROWS  # that a step of a plan may read of a slot or another table
# The server makes the first five plans of a prepared statement for their parameters, later ones for any.
RUNS: Final = 7

NODE: Final = UUID(md5(b"1", usedforsecurity=False).hexdigest())
LEASE: Final = timedelta(days=2)
BEATING: Final = (LEASE, LEASE, "token", "host", 1, "process", "node:asgi:node-1")
ROOMS: Final = [f"topic:asgi:room-{n}" for n in range(1, 65)]
BUSY: Final = "topic:asgi:busy"
LAST: Final = 2**62  # greater than every id
# Messages are a thousandth of a second apart.
HALF_SECONDS: Final = MESSAGES / 2 / 1000

# In three slots: a fifth of the messages in one queue, a fifth in one topic, the others in six thousand.
FILL: Final = """
TRUNCATE {tables};
SELECT pgchannels.extent();
INSERT INTO pgchannels.message (slot, id, batch, address, number, payload, published_at, expires_at)
SELECT 3 * (n - 1) / {messages}, began_at + n, CASE WHEN n % 10 = 0 THEN -n END,
       CASE n % 5 WHEN 0 THEN 'queue:asgi:jobs' WHEN 2 THEN 'topic:asgi:busy' ELSE 'topic:asgi:room-' || n % 10000 END,
       CASE WHEN n % 5 = 0 THEN n / 5 END, '\\x{payload}', now() - ({messages} - n) * interval '1 ms',
       now() + interval '1 day'
FROM pgchannels.log_state, generate_series(1, {messages}) AS n;
SELECT setval('pgchannels.message_id', (began_at + {messages} | 511) + 1) FROM pgchannels.log_state;
INSERT INTO pgchannels.message (slot, id, address, number, payload, published_at, expires_at)
VALUES (0, 0, 'claimed:asgi:jobs', {messages} / 15, '', now(), now());
INSERT INTO pgchannels.message (slot, id, address, channel, number, payload, published_at, expires_at)
SELECT 3 * (n - 1) / {addresses}, n, kind || ':asgi:worked', 'node:asgi:node-1', n, '', now(), 'infinity'
FROM unnest(ARRAY['working', 'done', 'idle', 'woken']) AS kind, generate_series(1, {addresses}) AS n;
INSERT INTO pgchannels.message (slot, id, address, channel, number, payload, published_at, expires_at)
SELECT slot, 0, 'open:asgi:worked', '{{' || {addresses} || '}}', 1, '', now(), now() FROM pgchannels.log_state;

INSERT INTO pgchannels.node (id, name, leased_until)
SELECT md5(n::text)::uuid, 'node-' || n, now() + interval '1 day' FROM generate_series(1, {nodes}) AS n;
INSERT INTO pgchannels.lease (node, address, leased_until)
SELECT id, 'node:asgi:' || name, leased_until FROM pgchannels.node;
INSERT INTO pgchannels.subscription (address, node)
SELECT 'topic:asgi:room-' || n, md5((1 + n % {nodes})::text)::uuid FROM generate_series(1, {addresses}) AS n;
INSERT INTO pgchannels.member (topic, queue, capacity)
SELECT 'topic:asgi:kept-' || n, 'queue:asgi:archive-' || n, 1000 FROM generate_series(1, {addresses}) AS n;
INSERT INTO pgchannels.full_channel (channel, node)
SELECT 'full.node-' || n || '!', md5(n::text)::uuid FROM generate_series(1, {nodes}) AS n;
"""
# As for the slots: no statistics come by themselves.
NEVER_ANALYSE: Final = "".join(
    f"ALTER TABLE pgchannels.{table} SET (autovacuum_enabled = off);" for table in sorted(LARGE_TABLES - {"message"})
)
TABLES: Final = ", ".join(f"pgchannels.{table}" for table in sorted(LARGE_TABLES))


@dataclass(frozen=True, slots=True)
class Committed:
    """What an application does in a transaction of its own."""

    work: Callable[[MessageLayer, AsyncConnection], Awaitable[object]]

    async def run(self, layer: MessageLayer, engine: AsyncEngine) -> None:
        """Do it, and commit."""
        async with engine.begin() as connection:
            await self.work(layer, connection)


@dataclass(frozen=True, slots=True)
class Road:
    """A way on which a statement runs, with a layer or by itself, and the tables that it is seen to come by."""

    statement: str
    tables: str
    way: Callable[[MessageLayer], Awaitable[object]] | Committed | tuple[Any, ...]


def of(build: Callable[..., Executable], *values: object, **named: object) -> tuple[Any, ...]:
    """A statement with its values."""
    return Connections.ask, build, values, named


def run(build: Callable[..., Executable], *arguments: object) -> tuple[Any, ...]:
    """A statement that is prepared, and what it is run with."""
    return Connections.fetch, build, arguments, {}


def page(positions: dict[str, int], *, most: int = reading.PAGE_ROWS) -> tuple[Any, ...]:
    """Read the next messages after these positions."""
    return run(reading.messages_after, True, list(positions), list(positions.values()), LAST, most, most)


async def send(layer: MessageLayer, channel: str) -> None:
    """Send a message that may find the channel full."""
    with suppress(ChannelFull):
        await layer.send(channel, "x")


async def send_batch(layer: MessageLayer) -> None:
    """Send as many messages as go into one batch, to all kinds of addresses."""
    rooms = LARGEST_BATCH - 92
    await asyncio.gather(
        *(layer.publish(f"room-{n}", "x" * 10_000 if n % 100 == 0 else "x") for n in range(rooms)),
        *(layer.publish(f"kept-{n % 4}", "x") for n in range(12)),
        *(send(layer, f"some.node-{n}!x") for n in range(20)),
        *(send(layer, f"full.node-{n}!x") for n in range(20)),
        *(send(layer, "mail") for _ in range(20)),
        *(send(layer, "jobs") for _ in range(20)),
    )


def repeated_batch() -> tuple[Any, ...]:
    """Deliver a batch, and again what was delivered, as after a lost connection."""
    addresses, payloads = [f"topic:asgi:room-{n}" for n in range(LARGEST_BATCH)], [b"x"] * LARGEST_BATCH
    return run(sending.deliver, 1, inf, addresses, None, payloads, None, None, 60.0, 0, None, None)


def keyed_batch() -> tuple[Any, ...]:
    """Deliver messages that were delivered before."""
    addresses, keys, payloads = ROOMS, [str(n) for n in range(len(ROOMS))], [b"x"] * len(ROOMS)
    return run(sending.deliver, None, inf, addresses, None, payloads, None, None, 60.0, LAST, keys, None)


async def publish_all(layer: MessageLayer, connection: AsyncConnection) -> None:
    """Publish to topics with and without queues, to a queue and with a key."""
    for n in range(3):
        await layer.publish_many([(f"room-{n}", "x"), (f"kept-{n}", "x")], connection=connection)
    await layer.send("mail", "x", connection=connection)
    await layer.publish("room-1", "x", key="once", connection=connection)


async def claim(layer: MessageLayer) -> None:
    """Receive from a queue that has a message at least."""
    await send(layer, "jobs")
    await within(layer.receive("jobs"))


async def repeat_claim(layer: MessageLayer) -> None:
    """Claim again what was claimed, as after a lost connection."""
    await send(layer, "jobs")
    with patch("secrets.randbits", return_value=2):
        await within(layer.receive("jobs"))


async def work(layer: MessageLayer) -> None:
    """Work on messages, and be done."""
    for _ in range(2):
        await send(layer, "jobs")
        async with within_limit(), layer.claim("jobs"):
            pass


async def fail(layer: MessageLayer) -> None:
    """Work on a message in vain, and wait until it is back."""
    await layer.send("failing", "x")
    with suppress(ZeroDivisionError):
        async with within_limit(), layer.claim("failing", visible_after=60):
            raise ZeroDivisionError
    await within(layer.receive("failing"))


async def wait_for_messages(layer: MessageLayer) -> None:
    """Send to a queue while somebody waits for it."""
    waiting = asyncio.create_task(layer.receive("awaited"))
    await layer.send("awaited", "x")
    await within(waiting)


def within_limit() -> asyncio.Timeout:
    """Limit the time of a block."""
    return asyncio.timeout(LIMIT_SECONDS)


def taking(queue: str, most: int, *, done: Sequence[list[int] | None] = (None, None)) -> tuple[Any, ...]:
    """What take() is called with."""
    return 3 + most, inf, f"queue:asgi:{queue}", most, "node:asgi:node-1", 1, False, 60.0, 5, *done


async def subscribe(layer: MessageLayer) -> None:
    """Begin to receive topics that the node has not received before."""
    async with layer.subscribe(*(token_hex(8) for _ in range(100))):
        pass


ROADS: Final = {
    "message to a topic": Road("deliver", "message subscription", lambda layer: layer.publish("room-1", "x")),
    "large message": Road("deliver", "message subscription", lambda layer: layer.publish("room-1", "x" * 10_000)),
    "message to nobody": Road("deliver", "message subscription", lambda layer: layer.publish("nobody", "x")),
    "message to a topic with a queue": Road("deliver", "message member", lambda layer: layer.publish("kept-1", "x")),
    "message to a channel": Road("deliver", "message full_channel", lambda layer: send(layer, "some.node-1!x")),
    "message to a full channel": Road("deliver", "message full_channel", lambda layer: send(layer, "full.node-1!x")),
    "message to a queue": Road("deliver", "message subscription", lambda layer: send(layer, "mail")),
    "message to a full queue": Road("deliver", "message subscription", lambda layer: send(layer, "jobs")),
    "batch": Road("deliver", "message subscription member full_channel", send_batch),
    "repeated batch": Road("deliver", "message", repeated_batch()),
    "batch with keys": Road("deliver", "message", keyed_batch()),
    "transaction": Road("enqueue", "outbox message subscription member", Committed(publish_all)),
    "leftovers of a transaction": Road("deliver_undelivered", "undelivered", of(sending.deliver_undelivered)),
    "claim": Road("take", "message", claim),
    "repeated claim": Road("take", "message", repeat_claim),
    "claim from an empty queue": Road("take", "message subscription node", run(queues.take, *taking("empty", 1))),
    "work": Road("take", "message", work),
    "work that failed": Road("give_back", "message", fail),
    "acknowledgement": Road("take", "message", run(queues.take, *taking("worked", 0, done=[[1], [1]]))),
    "work that was given back": Road(
        "give_back", "message", run(queues.give_back, "queue:asgi:worked", [1], [1], [True])
    ),
    "abandoned work": Road(
        "give_back_abandoned",
        "message",
        run(queues.give_back_abandoned, "queue:asgi:worked", "node:asgi:node-1", [1, 2]),
    ),
    "message to a queue that nodes wait for": Road("deliver", "message subscription", wait_for_messages),
    "waking of another node": Road("wake_another", "message", of(queues.wake_another, "queue:asgi:worked")),
    "subscribing": Road("host", "node subscription", subscribe),
    "hosting": Road("host", "node subscription", run(nodes.host, NODE, 0, None, ROOMS, [], True)),
    "releasing an address": Road("host", "node subscription", run(nodes.host, NODE, 0, None, [], ROOMS[:1], False)),
    "releasing many addresses": Road("host", "node subscription", run(nodes.host, NODE, 0, None, [], ROOMS, False)),
    "heartbeat": Road("beat", "node lease log_state", run(nodes.beat, NODE, "node-1", *BEATING)),
    "registration": Road("beat", "node lease log_state", run(nodes.beat, UUID(int=1), "another", *BEATING)),
    "heartbeat of a node that polls": Road("disown_session", "node", of(nodes.disown_session, NODE)),
    "channel that fills": Road("mark_full", "node full_channel", of(nodes.mark_full, NODE, ["a!", "b!"])),
    "channel that empties": Road("mark_not_full", "full_channel", of(nodes.mark_not_full, ["a!", "b!"])),
    "joining of a queue": Road(
        "add_member", "member", of(membership.add_member, ROOMS[0], "queue:asgi:x", capacity=1, expiry=LEASE)
    ),
    "leaving of a queue": Road("remove_member", "member", of(membership.remove_member, ROOMS[0], "queue:asgi:x")),
    "extent of the log": Road("extent", "log_state", run(reading.extent)),
    "look of a node that polls": Road("look", "log_state", run(reading.look)),
    "page of a topic": Road("messages_after", "message", page({ROOMS[0]: 0})),
    "page of a busy topic": Road("messages_after", "message", page({BUSY: 0})),
    "page of many topics": Road("messages_after", "message", page(dict.fromkeys(ROOMS, 0), most=10)),
    "end of the log": Road("messages_after", "message", page(dict.fromkeys(ROOMS, LAST))),
    "rest of a large message": Road("rest_of_message", "message", run(reading.rest_of_message, 1, ROOMS[0], 1)),
    "history of a topic": Road(
        "position_before_latest", "message", run(reading.position_before_latest, ROOMS[0], LAST, 100)
    ),
    "history of a busy topic": Road(
        "position_before_latest", "message", run(reading.position_before_latest, BUSY, LAST, 100)
    ),
    "position of a busy topic": Road("position", "message log_state", run(reading.position, "busy", "asgi")),
    "position of a topic without messages": Road("position", "message", run(reading.position, "unused", "asgi")),
    "what is gone of topics": Road("gone", "message log_state", run(reading.gone, ROOMS)),
    "time in topics": Road("find_time", "message log_state", run(reading.find_time, ROOMS, None, 3600.0)),
    "time in a busy topic": Road("find_time", "message log_state", run(reading.find_time, [BUSY], None, HALF_SECONDS)),
    "time in a topic without messages": Road(
        "find_time", "message log_state", run(reading.find_time, ["topic:asgi:unused"], None, 3600.0)
    ),
}

# Statements that no message, no join and no heartbeat waits for.
COLD: Final = {
    "explained_delivery",  # for people
    "remove_all_members",  # a flush, as the next three
    "remove_all_messages",
    "nodes_to_flush",
    "note_flushed",
    "remove_deaf_nodes",  # for tests
    "remove_ended_nodes",  # while nobody can notify
    "remove_nodes_of",  # after a benchmark
    "extent_columns",  # no statement, as the next
    "interval",
    "outbox_database",  # once in a process
    "remove_node",  # once in a node's life
    "listen",  # once a connection
    "keep_messages_for",  # at its beginning
    "retention",  # for people, as the next
    "set_retention",
    "kept_topics",
    "keep_topics_for",
    "rotate",  # twice in a retention
    "rotation_is_overdue",  # reads a few rows for ever
}


@pytest.fixture(scope="module", params=[False, True], ids=["never analysed", "analysed"])
def is_analysed(request: pytest.FixtureRequest) -> bool:
    """Whether the server has statistics of the tables."""
    analysed: bool = request.param
    return analysed


@pytest.fixture(scope="module")
def small_url(server_url: str, template_name: str, is_analysed: bool) -> Iterator[str]:
    """A database for tables of one row: each test fills it anew."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        yield url


@pytest.fixture(scope="module")
def large_url(server_url: str, template_name: str, is_analysed: bool) -> Iterator[str]:
    """A database whose tables are large."""
    with new_database(server_url, f'TEMPLATE "{template_name}"') as url:
        asyncio.run(fill(url, messages=MESSAGES, is_analysed=is_analysed))
        yield url


@pytest.mark.parametrize("road", ROADS)
async def test_statement_reads_by_index_while_tables_have_one_row(small_url: str, is_analysed: bool, road: str) -> None:
    # A plan may be kept for as long as its connection lives: it must suit what the tables become.
    await fill(small_url, messages=1, is_analysed=is_analysed)
    await require_good_plans(small_url, ROADS[road])


@pytest.mark.parametrize("road", ROADS)
async def test_statement_reads_by_index_and_little_when_tables_are_large(large_url: str, road: str) -> None:
    await require_good_plans(large_url, ROADS[road])


async def test_queues_and_topics_of_a_slot_that_is_emptied_are_found_by_index(
    small_url: str, large_url: str, is_analysed: bool
) -> None:
    await fill(small_url, messages=1, is_analysed=is_analysed)
    for url in (small_url, large_url):
        await claim_all(url)  # what waits is copied, row by row
    queues, topics = (
        text("SELECT pgchannels.carry_queues(0::smallint)"),
        text("SELECT pgchannels.note_gone(0::smallint, 1)"),
    )
    for url, query in ((small_url, queues), (large_url, queues), (small_url, topics)):  # the last reads a row per topic
        await require_good_plans(url, Road("", "message", of(lambda _, query=query: query)))


async def test_table_without_its_index_is_noticed(
    owner_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("ALTER TABLE pgchannels.member DROP CONSTRAINT member_pkey")
    with pytest.raises(pytest.fail.Exception, match="Seq Scan reads the whole of member"):
        await require_good_plans(owner_url, ROADS["message to a topic"])


async def test_rows_that_are_read_and_thrown_away_are_noticed(owner_url: str) -> None:
    await fill(owner_url, messages=20 * MOST_ROWS, is_analysed=False)
    query = text("SELECT FROM pgchannels.message WHERE address = 'topic:asgi:busy' AND payload = ''")
    with pytest.raises(pytest.fail.Exception, match=r"reads \d+ rows of message_0"):
        await require_good_plans(owner_url, Road("", "message", of(lambda _: query)))


def test_statements_that_have_no_road_are_known() -> None:
    modules = (measuring, membership, nodes, queues, reading, retention, sending)
    assert {road.statement for road in ROADS.values()} | COLD == set(chain.from_iterable(map(statements_of, modules)))


async def fill(url: str, *, messages: int, is_analysed: bool) -> None:
    """Make the tables as large as so many messages make them."""
    payload = Codec().encode("x", bound_to="").hex()
    rows = {"messages": messages, "addresses": -(-messages // 10), "nodes": -(-messages // 100)}
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(NEVER_ANALYSE + FILL.format(tables=TABLES, payload=payload, **rows))
        if is_analysed:
            await connection.execute(f"ANALYZE {TABLES}")
    finally:
        await connection.close()


async def claim_all(url: str) -> None:
    """Take all that waits in queues."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        """
        INSERT INTO pgchannels.message (slot, id, address, number, payload, published_at, expires_at)
        SELECT min(s.slot), 0, 'claimed' || substr(m.address, 6), max(m.number), '', now(), now()
        FROM pgchannels.message AS m, pgchannels.log_state AS s WHERE m.address LIKE 'queue:%' GROUP BY m.address
        """
    )
    await connection.close()


async def require_good_plans(url: str, road: Road) -> None:
    """Walk a road, and fail with each statement that does not find its rows by an index, or reads too many."""
    plans = await plans_of(url, road)
    assert {step.table for plan in plans for step in plan.top.steps} >= set(road.tables.split())
    faulty = {str(plan): list(plan.faults(most_rows=MOST_ROWS)) for plan in plans}
    report = [f"{', '.join(faults)}:\n{plan}" for plan, faults in faulty.items() if faults]
    if report:
        pytest.fail("\n\n".join(report), pytrace=False)


async def plans_of(url: str, road: Road) -> list[Plan]:
    """How the server runs what there is on a road."""
    explained = Explained(url)
    if isinstance(road.way, tuple):
        ask, build, values, named = road.way
        connections = Connections(Database(explained.engine))  # with which the parts of a layer run it
        await ask(connections, build, *values, **named)
        explained.forget()  # what the first run reads of the catalogues counts as read by the statement
        for _ in range(RUNS):
            await ask(connections, build, *values, **named)
        await connections.close()
        return explained.plans()
    async with MessageLayer(explained.engine, heartbeat=600) as layer:  # the heart beats too seldom to be seen
        explained.forget()
        for _ in range(RUNS):
            await (road.way.run(layer, explained.engine) if isinstance(road.way, Committed) else road.way(layer))
        await explained.engine.dispose()  # the connections of the application; the layer has its own
        return explained.plans()


def statements_of(module: ModuleType) -> set[str]:
    """The statements that a module defines, by name."""
    functions: list[tuple[str, Any]] = inspect.getmembers(module, inspect.isfunction)
    return {name for name, function in functions if function.__module__ == module.__name__ and name[0] != "_"}
