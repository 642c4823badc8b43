"""Work queues in SQL, against a model: what is sent first is received first, and every loss is counted."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.support.log import let_pass, rotate
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

EXAMPLES: Final = 25
STEPS: Final = 25
RETENTION_SECONDS: Final = 60  # of messages as well
HALF: Final = RETENTION_SECONDS // 2
REMEMBERED_TURNS: Final = 5  # since the last message to a queue: what it lost before may be forgotten then
QUEUES: Final = ["queue:asgi:a", "queue:asgi:b", "queue:asgi:c"]
TOPICS: Final = ["topic:asgi:g", "topic:asgi:h"]

capacities = st.integers(1, 6)
direct = st.tuples(st.sampled_from(QUEUES), capacities)
published = st.tuples(st.sampled_from(TOPICS), st.none())
batches = st.lists(st.one_of(direct, published), min_size=1, max_size=8)
members = st.dictionaries(st.tuples(st.sampled_from(TOPICS), st.sampled_from(QUEUES)), capacities)
CLEAN: Final = """
TRUNCATE pgchannels.message, pgchannels.log_state, pgchannels.filled_slot, pgchannels.member;
UPDATE pgchannels.log SET retention = '60 s';
SELECT pgchannels.extent();
"""
AGE: Final = f"UPDATE pgchannels.message SET expires_at = expires_at - interval '{HALF} s'"


@dataclass
class Sent:
    """A message in a queue of the model."""

    payload: bytes
    turn: int  # of the log: a message expires two turns later


@dataclass
class Queue:
    """All that was ever sent to a queue, how many of these were claimed or have expired before those, and how many had
    been sent whenever the queue could be forgotten.
    """

    sent: list[Sent] = field(default_factory=list)
    claimed: int = 0
    forgettable: set[int] = field(default_factory=lambda: {0})

    def take(self, payload: bytes, capacity: int, *, turn: int) -> bool:
        """Put a message into the queue unless the one that came `capacity` messages before still waits."""
        waiting = len(self.sent) - self.claimed
        if waiting >= capacity and self.sent[-capacity].turn > turn - 2:
            return False
        self.sent.append(Sent(payload, turn))
        return True

    def note_turn(self, turn: int) -> None:
        """Record that half of the retention has passed."""
        if self.sent and turn - self.sent[-1].turn >= REMEMBERED_TURNS:
            self.forgettable.add(len(self.sent))

    def claim(self, most: int, *, turn: int) -> tuple[list[bytes], set[int]]:
        """The first messages that have not expired, and how many have before them, as far as that is remembered."""
        waiting = list(enumerate(self.sent))[self.claimed :]
        fresh = [(place, sent.payload) for place, sent in waiting if sent.turn > turn - 2][:most]
        claiming = fresh[-1][0] + 1 if fresh else len(self.sent)
        lost = claiming - self.claimed - len(fresh)
        forgotten = {max(sent - self.claimed, 0) for sent in self.forgettable}
        self.claimed = claiming
        return [payload for _, payload in fresh], {lost - number for number in forgotten}


class Queues(RuleBasedStateMachine):
    """One example: an empty log, what is done to its queues, and the same done to the model."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.random = Random(0)
        self.queues = {address: Queue() for address in QUEUES}
        self.members: dict[tuple[str, str], int] = {}
        self.turn = 0
        self.repeatable: tuple[tuple[Any, ...], tuple[list[int], int]] | None = None
        self.holder: Any = None
        self.connection: Connection = self.run(asyncpg.connect(self.url))
        self.run(self.connection.execute(CLEAN))

    def run(self, step: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(within(step))

    @rule(members=members)
    def join(self, members: dict[tuple[str, str], int]) -> None:
        """Make queues members of topics, these and no others."""
        self.members = members
        self.run(self.connection.execute("DELETE FROM pgchannels.member"))
        rows = [(topic, queue, capacity) for (topic, queue), capacity in members.items()]
        self.run(self.connection.executemany("INSERT INTO pgchannels.member VALUES ($1, $2, $3)", rows))

    @rule(batch=batches)
    def deliver(self, batch: list[tuple[str, int | None]]) -> None:
        """Send a batch: queues take it in its order, full ones refuse messages and drop copies."""
        payloads = [self.random.randbytes(8) for _ in batch]
        refused, dropped = [], 0
        for n, ((address, capacity), payload) in enumerate(zip(batch, payloads, strict=True), start=1):
            if capacity is not None:
                if not self.queues[address].take(payload, capacity, turn=self.turn):
                    refused.append(n)
                continue
            for (topic, queue), member_capacity in self.members.items():
                if topic == address:
                    dropped += not self.queues[queue].take(payload, member_capacity, turn=self.turn)
        addresses, figures = [address for address, _ in batch], [capacity for _, capacity in batch]
        call = (self.random.getrandbits(62), addresses, payloads, figures if any(figures) else None)
        assert self.run(deliver(self.connection, *call)) == (refused, dropped)
        self.repeatable = call, (refused, dropped)

    @precondition(lambda self: self.repeatable is not None)
    @rule()
    def repeat(self) -> None:
        """Send the last batch again, as after a lost answer: it changes nothing, and tells the same."""
        assert self.repeatable is not None
        call, outcome = self.repeatable
        assert self.run(deliver(self.connection, *call)) == outcome

    @rule(address=st.sampled_from(QUEUES), most=st.integers(1, 5), times=st.integers(1, 2))
    def claim(self, address: str, most: int, times: int) -> None:
        """Claim, and claim again with the same number."""
        queue, number = self.queues[address], self.random.getrandbits(62)
        payloads, losses = queue.claim(most, turn=self.turn)
        for _ in range(times):
            claimed, lost = self.run(claim(self.connection, number, address, most))
            assert claimed == payloads
            assert lost in losses

    @rule(turns=st.integers(1, 4))
    def rotate(self, turns: int) -> None:
        """Let half of the retention pass, again and again."""
        self.repeatable = None  # remembered for the retention alone
        for _ in range(turns):
            self.turn += 1
            for queue in self.queues.values():
                queue.note_turn(self.turn)
            self.run(let_pass(self.connection, HALF))
            self.run(self.connection.execute(AGE))
            assert self.run(rotate(self.connection))

    @rule()
    def lock_or_unlock(self) -> None:
        """Keep the slots that there are from being emptied, as pg_dump does; or let them go."""
        if self.holder is None:
            self.holder = self.run(asyncpg.connect(self.url))
            self.run(self.holder.execute("BEGIN; LOCK TABLE pgchannels.message IN ACCESS SHARE MODE"))
        else:
            self.unlock()

    def unlock(self) -> None:
        if self.holder is not None:
            self.run(self.holder.close())
            self.holder = None

    def teardown(self) -> None:
        self.unlock()
        self.run(self.connection.close())
        self.runner.close()


async def deliver(
    connection: Connection, batch: int, addresses: list[str], payloads: list[bytes], capacities: list[int | None] | None
) -> tuple[list[int], int]:
    """Deliver a batch; returns which messages were refused, and how many copies were dropped."""
    row = await connection.fetchrow(
        "SELECT * FROM pgchannels.deliver($1, 'infinity', $2, NULL, $3, $4, NULL, $5)",
        batch,
        addresses,
        payloads,
        capacities,
        RETENTION_SECONDS,
    )
    assert row is not None
    return row["refused"] or [], row["dropped"] or 0


async def claim(connection: Connection, number: int, address: str, most: int) -> tuple[list[bytes], int]:
    """Claim; returns the payloads, and how many messages expired before them."""
    rows = await connection.fetch("SELECT * FROM pgchannels.claim($1, 'infinity', $2, $3)", number, address, most)
    return [row["payload"] for row in rows if row["id"] is not None], rows[0]["lost"] if rows else 0


def test_queues_behave_as_their_model(owner_url: str) -> None:
    machine = type("QueuesOfThisTest", (Queues,), {"url": owner_url})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=EXAMPLES, stateful_step_count=STEPS, suppress_health_check=list(HealthCheck)),
    )


@pytest.fixture
async def other(owner_url: str) -> "AsyncIterator[Connection]":
    """A second connection to the database of the test."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


async def is_waiting(connection: Connection, waiting: Connection) -> bool:
    """Whether another connection waits for a lock."""
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    answer: bool | None = await connection.fetchval(query, waiting.get_server_pid())
    return bool(answer)


@pytest.mark.parametrize("address", ["queue:asgi:jobs", "topic:asgi:kept"])
async def test_message_that_waits_for_another_to_its_queue_gets_the_next_number(
    connection: Connection, other: Connection, owner_url: str, address: str
) -> None:
    await connection.execute("INSERT INTO pgchannels.member VALUES ('topic:asgi:kept', 'queue:asgi:jobs', 1000)")
    capacities: list[int | None] | None = [1000] if address == "queue:asgi:jobs" else None
    watching = await asyncpg.connect(owner_url)
    async with connection.transaction():
        await deliver(connection, 1, ["queue:asgi:jobs"], [b"first"], [1000])
        delivering = asyncio.create_task(deliver(other, 2, [address], [b"second"], capacities))
        await until(lambda: is_waiting(watching, other))
    await within(delivering)
    await watching.close()
    query = "SELECT number, payload FROM pgchannels.message WHERE address = 'queue:asgi:jobs' ORDER BY number"
    assert [tuple(row) for row in await connection.fetch(query)] == [(1, b"first"), (2, b"second")]


async def test_claim_that_waits_for_another_from_its_queue_takes_the_next_messages(
    connection: Connection, other: Connection, owner_url: str
) -> None:
    await deliver(connection, 1, ["queue:asgi:jobs"] * 2, [b"first", b"second"], [1000] * 2)
    watching = await asyncpg.connect(owner_url)
    async with connection.transaction():
        assert await claim(connection, 2, "queue:asgi:jobs", 1) == ([b"first"], 0)
        claiming = asyncio.create_task(claim(other, 3, "queue:asgi:jobs", 1))
        await until(lambda: is_waiting(watching, other))
    assert await within(claiming) == ([b"second"], 0)
    await watching.close()


async def test_batch_of_which_all_were_refused_is_refused_again_when_it_is_repeated(connection: Connection) -> None:
    # Its sender was told so: a call that arrives late must not put it into the queue all the same.
    await deliver(connection, 1, ["queue:asgi:jobs"], [b"first"], [1])
    assert await deliver(connection, 2, ["queue:asgi:jobs"], [b"second"], [1]) == ([1], 0)
    await claim(connection, 3, "queue:asgi:jobs", 1)
    assert await deliver(connection, 2, ["queue:asgi:jobs"], [b"second"], [1]) == ([1], 0)
    assert await claim(connection, 4, "queue:asgi:jobs", 1) == ([], 0)


async def test_claims_are_remembered_while_an_older_slot_cannot_be_emptied(
    connection: Connection, other: Connection
) -> None:
    await connection.execute(CLEAN)
    await deliver(connection, 1, ["queue:asgi:jobs"] * 2, [b"x"] * 2, [1000] * 2)
    slot = await connection.fetchval("SELECT slot FROM pgchannels.log_state")
    await let_pass(connection, HALF)
    await rotate(connection)
    assert await claim(connection, 2, "queue:asgi:jobs", 2) == ([b"x"] * 2, 0)
    async with other.transaction():
        await other.execute(f"LOCK TABLE pgchannels.message_{slot} IN ACCESS SHARE MODE")
        for _ in range(6):
            await let_pass(connection, HALF)
            await rotate(connection)
        # Also where the messages have not expired: another layer's expiry may be longer than all that is known.
        assert await claim(connection, 3, "queue:asgi:jobs", 2) == ([], 0)
        await deliver(connection, 4, ["queue:asgi:jobs"], [b"next"], [1000])
        assert await claim(connection, 5, "queue:asgi:jobs", 2) == ([b"next"], 0)


async def test_messages_that_left_the_log_unclaimed_are_counted_for_the_next_receiver(connection: Connection) -> None:
    await connection.execute(CLEAN)
    await deliver(connection, 1, ["queue:asgi:jobs"] * 3, [b"x"] * 3, [1000] * 3)
    for _ in range(3):
        await let_pass(connection, HALF)
        await connection.execute(AGE)
        await rotate(connection)
    await deliver(connection, 2, ["queue:asgi:jobs"], [b"next"], [1000])
    assert await claim(connection, 3, "queue:asgi:jobs", 5) == ([b"next"], 3)


async def test_abandoned_queues_leave_the_log(connection: Connection) -> None:
    await connection.execute(CLEAN)
    await deliver(connection, 1, [f"queue:asgi:{n}" for n in range(9)], [b"x"] * 9, [1000] * 9)
    await claim(connection, 2, "queue:asgi:0", 1)
    for _ in range(6):
        await let_pass(connection, HALF)
        await connection.execute(AGE)
        await rotate(connection)
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.message WHERE address <> 'gone:'") == 0


async def test_message_to_a_topic_with_ten_thousand_queues_is_soon_in_all_of_them(connection: Connection) -> None:
    # With a step for each pair of queues it took minutes, under the lock of the topic.
    await connection.execute(
        """
        INSERT INTO pgchannels.member
        SELECT 'topic:asgi:room', 'queue:asgi:' || n, 1000 FROM generate_series(1, 10000) AS n
        """
    )
    for batch in (1, 2):
        await within(deliver(connection, batch, ["topic:asgi:room"], [b"x"], None))
    numbers = "SELECT min(number), max(number), count(*) FROM pgchannels.message WHERE address LIKE 'queue:%'"
    assert tuple(await connection.fetchrow(numbers) or ()) == (1, 2, 20_000)
