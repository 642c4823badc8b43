"""What is delivered, in which order, and who waits for whom."""

import asyncio
from contextlib import suppress
from typing import Any, Final, TypeAlias

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgchannels import MessageLayer
from tests.support.log import let_pass, rotate
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ISOLATIONS: Final = ("read_committed", "repeatable_read", "serializable")

# A transaction: publishes (a topic), and savepoints with more of the same, each released or rolled back.
steps: Final = st.recursive(
    st.integers(0, 2).map(lambda topic: ("publish", topic)),
    lambda inner: st.tuples(st.sampled_from(["release", "roll back"]), st.lists(inner, max_size=4)),
    max_leaves=12,
)
transactions: Final = st.lists(
    st.tuples(st.sampled_from(ISOLATIONS), st.booleans(), st.lists(steps, max_size=5)), min_size=1, max_size=4
)


class Undone(Exception):
    """Rolls back to a savepoint."""


class Player:
    """Plays transactions, and knows what must come of them."""

    def __init__(self, layer: MessageLayer, connection: Connection) -> None:
        self._layer = layer
        self._connection = connection
        self._number = 0
        self.due: list[tuple[str, int]] = []

    async def play(self, isolation: Any, commits: bool, todo: list[Any]) -> None:
        """Play a transaction."""
        due: list[tuple[str, int]] = []
        transaction = self._connection.transaction(isolation=isolation)
        await transaction.start()
        for step in todo:
            due += await self._take(step)
        if commits:
            await transaction.commit()
            self.due += due
        else:
            await transaction.rollback()

    async def _take(self, step: Any) -> list[tuple[str, int]]:
        kind, content = step
        if kind == "publish":
            self._number += 1
            topic = f"topic-{content}"
            await self._layer.publish(topic, self._number, connection=self._connection)
            return [(topic, self._number)]
        due: list[tuple[str, int]] = []
        try:
            async with self._connection.transaction():
                for inner in content:
                    due += await self._take(inner)
                if kind == "roll back":
                    raise Undone
        except Undone:
            return []
        return due


@given(todo=transactions)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_committed_transactions_published_is_delivered_in_their_order_and_nothing_else(
    layer: MessageLayer, connection: Connection, todo: list[Any]
) -> None:
    player = Player(layer, connection)
    topics = [f"topic-{n}" for n in range(3)]
    async with layer.subscribe(*topics, "end") as subscription:
        for isolation, commits, content in todo:
            await player.play(isolation, commits, content)
        async with connection.transaction(isolation="serializable"):  # delivered last
            await layer.publish("end", 0, connection=connection)
        came = []
        async for message in subscription:
            if message.topic == "end":
                break
            came.append((message.topic, message.payload))
    for topic in topics:
        assert [one for one in came if one[0] == topic] == [one for one in player.due if one[0] == topic]
    assert sorted(came) == sorted(player.due)
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 0


async def test_open_transaction_delays_neither_messages_nor_rotation(
    layer: MessageLayer, connection: Connection, database_url: str
) -> None:
    holder = await asyncpg.connect(database_url)
    async with layer.subscribe("room") as subscription, holder.transaction():
        await layer.publish("room", "held", connection=holder)
        await layer.publish("room", "free")
        async with connection.transaction():
            await layer.publish("room", "committed", connection=connection)
        assert [(await within(anext(subscription))).payload for _ in range(2)] == ["free", "committed"]
        for _ in range(3):
            await let_pass(connection, 60)
            assert await rotate(connection)
    await holder.close()


async def test_transactions_that_publish_in_opposite_orders_never_deadlock(
    layer: MessageLayer, database_url: str
) -> None:
    topics = [f"topic-{n}" for n in range(20)]

    async def play(order: list[str]) -> None:
        connection = await asyncpg.connect(database_url)
        for _ in range(500):
            async with connection.transaction():
                await layer.publish_many([(topic, 1) for topic in order], connection=connection)
        await connection.close()

    await asyncio.gather(play(topics), play(topics[::-1]))


async def test_transaction_of_many_batches_is_delivered_whole_and_in_order(
    layer: MessageLayer, connection: Connection
) -> None:
    async with layer.subscribe("room", capacity=3000) as subscription:
        async with connection.transaction():
            for begin in range(0, 2000, 500):
                numbers = range(begin, begin + 500)
                await layer.publish_many([("room", n) for n in numbers], connection=connection)
        assert [(await within(anext(subscription))).payload for _ in range(2000)] == list(range(2000))


async def test_immediate_constraints_leave_savepoints_what_they_are(
    layer: MessageLayer, connection: Connection
) -> None:
    async with layer.subscribe("room") as subscription:
        async with connection.transaction():
            await layer.publish("room", 1, connection=connection)
            with suppress(Undone):
                async with connection.transaction():
                    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                    await layer.publish("room", "undone", connection=connection)
                    raise Undone
            await layer.publish("room", 2, connection=connection)
            await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
            await layer.publish("room", 3, connection=connection)
        await layer.publish("room", 4)
        assert [(await within(anext(subscription))).payload for _ in range(4)] == [1, 2, 3, 4]


async def test_full_queue_fails_the_commit_and_nothing_of_it_is_sent(database_url: str, connection: Connection) -> None:
    async with MessageLayer(database_url, capacity=2) as layer, layer.subscribe("room") as subscription:
        await layer.send("jobs", 1)
        transaction = connection.transaction()
        await transaction.start()
        await layer.publish("room", "never", connection=connection)
        for number in (2, 3):
            await layer.send("jobs", number, connection=connection)
        with pytest.raises(asyncpg.ConfigurationLimitExceededError, match="jobs is full") as failed:
            await transaction.commit()
        assert "rolled back" in str(failed.value.detail)
        async with connection.transaction():
            await layer.send("jobs", 4, connection=connection)
        await layer.publish("room", "last")
        assert (await within(anext(subscription))).payload == "last"
        assert [await within(layer.receive("jobs")) for _ in range(2)] == [1, 4]


async def test_full_queue_takes_what_a_serializable_transaction_has_committed(
    database_url: str, connection: Connection
) -> None:
    async with MessageLayer(database_url, capacity=1) as layer:
        async with connection.transaction(isolation="serializable"):
            for number in range(3):
                await layer.send("jobs", number, connection=connection)
        assert [await within(layer.receive("jobs")) for _ in range(3)] == [0, 1, 2]


async def test_serializable_transactions_that_publish_at_once_are_no_conflict(
    layer: MessageLayer, database_url: str
) -> None:
    connections = [await asyncpg.connect(database_url) for _ in range(4)]
    transactions = [connection.transaction(isolation="serializable") for connection in connections]
    async with layer.subscribe("room") as subscription:
        for transaction in transactions:
            await transaction.start()
        for number, connection in enumerate(connections):
            await layer.publish("room", number, connection=connection)
        for transaction in transactions:
            await transaction.commit()
        assert {(await within(anext(subscription))).payload for _ in connections} == set(range(4))
    for connection in connections:
        await connection.close()


async def test_serializable_transaction_reaches_who_subscribed_after_its_snapshot(
    layer: MessageLayer, connection: Connection
) -> None:
    async with connection.transaction(isolation="serializable"):
        await layer.publish("other", 0, connection=connection)  # it takes its snapshot
        async with layer.subscribe("room") as subscription:
            await layer.publish("room", 1, connection=connection)
            await connection.execute("COMMIT; BEGIN")
            assert (await within(anext(subscription))).payload == 1


async def test_serializable_transaction_that_no_node_hears_is_delivered_by_the_next_one(
    database_url: str, connection: Connection
) -> None:
    sending = MessageLayer(database_url)
    async with connection.transaction(isolation="repeatable_read"):
        await sending.publish("room", 1, connection=connection)
    await sending.close()
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 1
    async with MessageLayer(database_url) as layer:

        async def is_delivered() -> bool:
            return [message.payload for message in await layer.history("room")] == [1]

        await until(is_delivered)
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.outbox") == 0
