"""What the comments of the receiving parts state holds when things happen in between: at a gate, each at its moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeAlias

import asyncpg
import pytest

from pgchannels import Gap, GapReason, MessageLayer
from pgchannels.database.connections import Connections
from pgchannels.database.database import Database
from pgchannels.django import PostgresChannelLayer
from pgchannels.receiving import catch_up
from tests.faults.moments import beat, come_back, cut_off, forget_all_nodes, is_live, received, so
from tests.faults.numbered import numbered, numbers
from tests.support.gates import Gate
from tests.support.log import let_pass, rotate
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import steps, until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ROOM = "topic:asgi:room"
LARGE = "x" * 9_000  # more than a notification takes
DELIVER = (
    "SELECT first_id FROM pgchannels.deliver((random() * 2^62)::bigint, 'infinity', $1, NULL, '{x}', NULL, NULL, 60)"
)
LONG_SECONDS = 20_000  # more than any of these layers needs messages for
SILENCE_SECONDS = 1
LOST = Gap(GapReason.EXPIRED, None)


async def rotate_everything_away(connection: Connection) -> None:
    """Let so much time pass that no message is left."""
    for _ in range(4):
        await let_pass(connection, LONG_SECONDS)
        await rotate(connection)


# Reading and hearing.


async def test_message_of_a_group_that_is_read_does_not_overtake_one_that_is_still_to_be_heard(
    proxy: Proxy, database_url: str
) -> None:
    receiver, sender = PostgresChannelLayer(proxy.url, heartbeat=3600), PostgresChannelLayer(database_url)
    channel = await receiver.new_channel()
    with Gate(node_of(receiver).receiver.catch_up, "_read_page") as reading:
        await sender.group_add("room", channel)
        await within(reading.reached())
        proxy.freeze_at(channel.encode())
        await sender.send(channel, numbered(1))
        await within(proxy.holding(channel.encode()))
        await sender.group_send("room", numbered(2))
        reading.open()
        await within(reading.done())
    proxy.restore()
    assert await numbers(receiver, channel, 2) == [1, 2]
    await receiver.close()
    await sender.close()


async def test_message_heard_by_a_new_connection_does_not_overtake_one_that_was_missed(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    catching_up = node_of(behind).receiver.catch_up
    async with behind.subscribe("room") as subscription:
        with Gate(node_of(behind).receiver.log, "page", behind=True) as page:
            catching_up.read_all()
            await within(page.reached())
            cut_off(proxy)
            await layer.publish("room", "missed")
            await come_back(behind, proxy)
            heard = await layer.publish("room", "heard")
            await so(lambda: catching_up._heard_until >= heard.to_id())
        assert await received(subscription, [], 2) == ["missed", "heard"]


async def test_message_heard_before_the_first_beat_of_a_connection_does_not_overtake_one_that_was_missed(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    catching_up = node_of(behind).receiver.catch_up
    async with behind.subscribe("room") as subscription:
        with Gate(node_of(behind).receiver, "beat") as beating:
            cut_off(proxy)
            await layer.publish("room", "missed")
            proxy.restore()
            await within(beating.reached())
            heard = await layer.publish("room", "heard")
            await so(lambda: catching_up._heard_until >= heard.to_id())
            catching_up._work.set()
            await steps(10)
        assert await received(subscription, [], 2) == ["missed", "heard"]


async def test_page_that_comes_before_the_first_beat_of_a_connection_is_not_taken_for_all_that_was_missed(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    catching_up = node_of(behind).receiver.catch_up
    async with behind.subscribe("room") as subscription:
        with (
            Gate(node_of(behind).receiver.log, "page", behind=True) as page,
            Gate(node_of(behind).receiver, "beat") as beating,
        ):
            catching_up.read_all()
            await within(page.reached())
            cut_off(proxy)
            await layer.publish("room", "missed")
            proxy.restore()
            await within(beating.reached())
            heard = await layer.publish("room", "heard")
            await so(lambda: catching_up._heard_until >= heard.to_id())
            page.open()
            await within(page.done())
            await steps(10)
        assert await received(subscription, [], 2) == ["missed", "heard"]


async def test_page_of_some_that_comes_when_the_connection_was_lost_leaves_out_nothing_that_was_heard(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    catching_up, log = node_of(behind).receiver.catch_up, node_of(behind).receiver.log
    payloads = ["1" + LARGE, 2, "3" + LARGE]
    async with behind.subscribe("room") as subscription:
        with Gate(catching_up, "_read_page") as reading, Gate(log, "page", behind=True) as page:
            for payload in payloads:
                heard = await layer.publish("room", payload)
            await so(lambda: catching_up._heard_until >= heard.to_id())
            reading.open()
            await within(page.reached())
            cut_off(proxy)
            await come_back(behind, proxy)
        assert await received(subscription, [], 3) == payloads


async def test_reading_of_everything_that_follows_a_page_of_some_goes_to_the_end(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    catching_up, log = node_of(behind).receiver.catch_up, node_of(behind).receiver.log
    large = [str(number) * 1_200_000 for number in range(3)]  # more than a page takes
    async with behind.subscribe("room") as subscription:
        with Gate(catching_up, "_read_page") as reading, Gate(log, "page", behind=True) as page:
            for payload in large:
                heard = await layer.publish("room", payload)
            await so(lambda: catching_up._heard_until >= heard.to_id())
            reading.open()
            await within(page.reached())
            cut_off(proxy)
            await layer.publish("room", "missed")
            await come_back(behind, proxy)
        assert await received(subscription, [], 4) == [*large, "missed"]


@pytest.mark.parametrize("payloads", [[LARGE, 1, 2, 3, 4, 5, 6], [0, 1, LARGE, 2, 3, LARGE]], ids=["first", "between"])
async def test_what_is_too_much_to_hold_is_read(
    layer: MessageLayer, other_layer: MessageLayer, monkeypatch: pytest.MonkeyPatch, payloads: list[object]
) -> None:
    monkeypatch.setattr(catch_up, "MOST_HELD", 2)
    catching_up = node_of(layer).receiver.catch_up
    async with layer.subscribe("room") as subscription:
        with Gate(node_of(layer).receiver.log, "page", behind=True) as page:
            catching_up.read_all()
            await within(page.reached())
            for payload in payloads:
                position = await other_layer.publish("room", payload)
            await so(lambda: catching_up._heard_until >= position.to_id())
        assert await received(subscription, [], len(payloads)) == payloads


async def test_large_message_that_is_heard_while_a_page_comes_is_not_gone(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    told: list[object] = []
    catching_up = node_of(layer).receiver.catch_up
    async with layer.subscribe("room", on_gap=told.append) as subscription:
        with Gate(node_of(layer).receiver.log, "page", behind=True) as page:
            catching_up.read_all()
            await within(page.reached())
            position = await other_layer.publish("room", LARGE)
            await so(lambda: catching_up._heard_until >= position.to_id())
        assert await received(subscription, told, 1) == [LARGE]


async def test_subscriber_of_a_node_that_catches_up_gets_nothing_from_before_it_subscribed(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy
) -> None:
    async with behind.subscribe("room") as early:
        await layer.publish("room", "before")
        assert await received(early, [], 1) == ["before"]
        cut_off(proxy)
        await layer.publish("room", "missed")
        late = behind.subscribe("room")
        with Gate(node_of(behind).receiver, "beat") as beating:
            proxy.restore()
            await within(beating.reached())  # it hears, and has not read what it missed
            entering = asyncio.create_task(late.__aenter__())
            await so(lambda: node_of(behind).receiver.hosting.is_behind)
        await within(entering)
        await layer.publish("room", "after")
        assert await received(early, [], 2) == ["missed", "after"]
        assert await received(late, [], 1) == ["after"]


async def test_address_that_is_given_up_while_it_begins_to_be_hosted_is_hosted_again_for_the_next(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    hosting = node_of(layer).receiver.hosting
    with Gate(hosting, "_host", behind=True) as call:
        entering = asyncio.create_task(layer.subscribe("room").__aenter__())
        await within(call.reached())
        entering.cancel()
        await asyncio.wait([entering])
        await beat(layer)  # the node has no use for it
    await so(lambda: not hosting.is_behind)
    async with layer.subscribe("room") as subscription:
        await other_layer.publish("room", "heard")
        assert await received(subscription, [], 1) == ["heard"]


# What left the log.


async def test_node_that_was_away_for_too_long_is_told_before_what_the_log_still_has(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    told: list[object] = []
    async with behind.subscribe("room", on_gap=told.append) as subscription:
        cut_off(proxy)
        await layer.publish("room", "lost")
        await rotate_everything_away(connection)
        await layer.publish("room", "kept")
        await come_back(behind, proxy)
        assert await received(subscription, told, 1) == [LOST, "kept"]


async def test_second_gap_that_opens_while_what_is_behind_the_first_is_read_is_told(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    told: list[object] = []
    async with behind.subscribe("room", on_gap=told.append, capacity=2_000) as subscription:
        cut_off(proxy)
        await layer.publish("room", "lost")
        await rotate_everything_away(connection)
        await layer.publish_many([("room", number) for number in range(1_500)])
        await let_pass(connection, LONG_SECONDS)
        assert await rotate(connection)  # their slot is full, and not yet emptied
        with Gate(node_of(behind).receiver.log, "page", first=1) as second_page:
            await come_back(behind, proxy)
            await within(second_page.reached())
            await rotate_everything_away(connection)
            await layer.publish("room", "kept")
        assert await received(subscription, told, 1_001) == [LOST, *range(1_000), LOST, "kept"]


async def test_reading_of_one_address_does_not_account_for_what_is_still_to_be_heard_of_another(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection
) -> None:
    told: list[object] = []
    async with behind.subscribe("room", "news", on_gap=told.append) as subscription:
        with Gate(node_of(behind).receiver.catch_up, "_read_page") as reading:
            await layer.publish("room", LARGE)
            await within(reading.reached())
            proxy.freeze_at(b" topic:asgi:news ")
            await layer.publish("news", "lost")
            await within(proxy.holding(b" topic:asgi:news "))
            await let_pass(connection, LONG_SECONDS)
            assert await rotate(connection)
            reading.open()
            await within(reading.done())
        assert await received(subscription, told, 1) == [LARGE]
        cut_off(proxy)
        await rotate_everything_away(connection)
        await layer.publish("news", "kept")
        await come_back(behind, proxy)
        assert await received(subscription, told, 1) == [LARGE, LOST, "kept"]


async def test_node_that_was_forgotten_is_told_what_left_the_log_before_it_is_back(
    layer: MessageLayer, behind: MessageLayer, connection: Connection
) -> None:
    told: list[object] = []
    async with behind.subscribe("room", on_gap=told.append) as subscription:
        await forget_all_nodes(connection)
        await layer.publish("room", "lost")
        await rotate_everything_away(connection)
        await layer.publish("room", "kept")
        await beat(behind)
        assert await received(subscription, told, 1) == [LOST, "kept"]


async def test_gap_of_one_topic_is_not_told_to_subscribers_of_another(
    layer: MessageLayer, behind: MessageLayer, connection: Connection
) -> None:
    of_room, of_news = list[object](), list[object]()
    async with behind.subscribe("room", on_gap=of_room.append) as room:
        await connection.execute(f"DELETE FROM pgchannels.subscription WHERE address = '{ROOM}'")
        await layer.publish("room", "lost")
        await rotate_everything_away(connection)
        async with behind.subscribe("news", on_gap=of_news.append) as news:
            await connection.execute("UPDATE pgchannels.node SET version = 0")  # as if another had removed it
            for topic in ("news", "room"):
                await layer.publish(topic, "kept")
            await beat(behind)
            await layer.publish("news", "last")
            assert await received(news, of_news, 2) == ["kept", "last"]
            assert await received(room, of_room, 1) == [LOST, "kept"]


@pytest.mark.parametrize("how", ["heard", "read"])
async def test_node_that_got_everything_before_it_left_the_log_is_told_of_no_gap(
    layer: MessageLayer, behind: MessageLayer, proxy: Proxy, connection: Connection, how: str
) -> None:
    told: list[object] = []
    async with behind.subscribe("room", on_gap=told.append) as subscription:
        if how == "read":
            cut_off(proxy)
        await layer.publish("room", "before")
        await let_pass(connection, LONG_SECONDS)
        assert await rotate(connection)
        if how == "read":
            await come_back(behind, proxy)
            await is_live(node_of(behind))
        else:
            await beat(behind)
        cut_off(proxy)
        await rotate_everything_away(connection)  # also generations without any message
        await layer.publish("room", "after")
        await come_back(behind, proxy)
        assert await received(subscription, told, 2) == ["before", "after"]


# Replay.


async def test_message_with_a_lesser_id_that_is_committed_later_to_another_topic_is_replayed(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    since = await layer.publish("room", "seen")
    envelope = await connection.fetchval("SELECT payload FROM pgchannels.message WHERE address = $1", ROOM)
    assert await connection.fetchval("SELECT hashtext($1) & 63 <> hashtext('topic:asgi:news') & 63", ROOM)
    async with layer.subscribe("room", "news", since=since) as subscription:
        async with connection.transaction():
            await connection.execute(
                "SELECT pgchannels.deliver(1, 'infinity', $1, NULL, $2, NULL, NULL, 60)",
                ["topic:asgi:news"],
                [envelope],
            )
            await other_layer.publish("room", "with a greater id")
            first = await within(anext(subscription))
        second = await within(anext(subscription))
    assert [first.topic, second.topic] == ["room", "news"]
    assert second.position < first.position


async def test_message_that_is_routed_while_the_last_page_of_a_replay_comes_is_replayed(
    layer: MessageLayer, other_layer: MessageLayer
) -> None:
    since = await other_layer.publish("room", "seen")
    await other_layer.publish("room", "replayed")
    async with layer.subscribe("room") as live, layer.subscribe("room", since=since) as subscription:
        with Gate(node_of(layer).receiver.log, "page", behind=True) as page:
            first = asyncio.create_task(anext(subscription))
            await within(page.reached())
            await other_layer.publish("room", "routed")
            assert await received(live, [], 1) == ["routed"]
        assert (await within(first)).payload == "replayed"
        await other_layer.publish("room", "last")
        assert await received(subscription, [], 2) == ["routed", "last"]


async def test_subscription_that_ends_while_its_page_comes_leaves_nothing_behind(layer: MessageLayer) -> None:
    since = await layer.publish("room", "seen")
    node = node_of(layer)
    with Gate(node.receiver.replays._log, "page", behind=True) as page:
        async with layer.subscribe("room", since=since) as subscription:
            receiving = asyncio.create_task(anext(subscription))
            await within(page.reached())
            receiving.cancel()
            await asyncio.wait([receiving])
        page.open()
        await within(page.done())
    await beat(layer)
    assert node.receiver.router.addresses() == [node.receiver._address]


async def test_each_task_that_waits_for_a_replay_gets_a_message_whoever_is_cancelled(layer: MessageLayer) -> None:
    since = await layer.publish("room", "seen")
    for number in range(2):
        await layer.publish("room", number)
    async with layer.subscribe("room", since=since) as subscription:
        with Gate(node_of(layer).receiver.log, "page") as page:
            tasks = [asyncio.create_task(anext(subscription)) for _ in range(3)]
            await within(page.reached())
            tasks[0].cancel()
            await asyncio.wait(tasks[:1])
        assert [(await within(task)).payload for task in tasks[1:]] == [0, 1]


async def test_replay_that_has_read_everything_before_it_left_the_log_is_told_of_no_gap(
    layer: MessageLayer, other_layer: MessageLayer, connection: Connection
) -> None:
    told: list[object] = []
    since = await other_layer.publish("room", "seen")
    await other_layer.publish("room", "replayed")
    await let_pass(connection, LONG_SECONDS)
    assert await rotate(connection)
    async with (
        layer.subscribe("room") as live,
        layer.subscribe("room", since=since, on_gap=told.append) as subscription,
    ):
        with Gate(node_of(layer).receiver.log, "page", behind=True) as page:
            first = asyncio.create_task(anext(subscription))
            await within(page.reached())
            await other_layer.publish("room", "routed")  # so that another page is read
            assert await received(live, [], 1) == ["routed"]
            await let_pass(connection, LONG_SECONDS)
            assert await rotate(connection)  # what it has read is gone
        assert (await within(first)).payload == "replayed"
        assert await received(subscription, told, 1) == ["routed"]


async def test_subscriptions_that_are_read_together_get_everything_after_their_own_positions(
    layer: MessageLayer,
) -> None:
    node = node_of(layer).receiver
    since = [await layer.publish("room", number) for number in range(3)]
    async with (
        layer.subscribe("room", since=since[0]) as early,
        layer.subscribe("room", since=since[1]) as late,
        layer.subscribe("room", since=since[2]) as last,
    ):
        with Gate(node.log, "page") as page:
            tasks = [asyncio.create_task(anext(last))]
            await within(page.reached())
            tasks += [asyncio.create_task(anext(each)) for each in (early, late)]
            await so(lambda: len(node.replays._asking) == 3)
        await layer.publish("room", 3)
        assert [(await within(task)).payload for task in tasks] == [3, 1, 2]


async def test_topics_of_a_replay_stay_in_order_where_a_page_has_only_a_part_of_one(layer: MessageLayer) -> None:
    since = await layer.publish("room", "seen")
    await layer.publish_many([("room", number) for number in range(600)] + [("news", 600), ("room", 601)])
    async with layer.subscribe("room", "news", since=since) as subscription:
        assert await received(subscription, [], 602) == list(range(602))


# Connections.


async def test_connection_is_opened_when_the_one_before_is_closed(proxy: Proxy) -> None:
    held = Connections(Database(proxy.url)).hold()
    before = await held.opened()
    proxy.freeze("to_server", new_connections=False)  # so that its end takes a while
    held.leave()
    assert await within(held.opened()) is not before
    assert not held._leaving
    await held.close()


async def test_time_in_which_a_statement_waits_for_another_does_not_count_as_silence(
    database_url: str, connection: Connection, watching: Connection
) -> None:
    held = Connections(Database(database_url), silence_seconds=60).hold()
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(1)")
        first = asyncio.create_task(held.fetch("SELECT pg_advisory_xact_lock(1)"))
        await until(lambda: waits_for_a_lock(watching))
        second = asyncio.create_task(held.fetch("SELECT 1", silence_seconds=SILENCE_SECONDS))
        await asyncio.wait([second], timeout=2 * SILENCE_SECONDS)
    await within(first)
    assert [tuple(row) for row in await within(second)] == [(1,)]
    await held.close()


# Behind locks.


async def test_page_shows_what_left_the_log_while_it_waited(
    layer: MessageLayer, connection: Connection, owner_url: str
) -> None:
    position = await layer.publish("room", "lost")
    remover = await asyncpg.connect(owner_url)
    async with remover.transaction():
        await remover.execute("TRUNCATE pgchannels.message")
        await remover.execute("UPDATE pgchannels.log_state SET gone_until = $1", position.to_id())
        reading = asyncio.create_task(node_of(layer).receiver.log.page({ROOM: 0}))
        await until(lambda: waits_for_a_lock(connection))
    page = await within(reading)
    await remover.close()
    assert (page.arrivals, page.gone_until) == ([], position.to_id())


async def waits_for_a_lock(connection: Connection) -> bool:
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await connection.fetchval(f"SELECT EXISTS ({waiting})"))


async def unless_it_waits(connection: Connection, call: asyncio.Task[object]) -> None:
    """Return once a call waits for a lock, or has come to its end without."""

    async def either() -> bool:
        return call.done() or await waits_for_a_lock(connection)

    await until(either)


@pytest.fixture
async def another(owner_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def watching(owner_url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


async def run(call: Awaitable[object]) -> object:
    return await call


async def test_node_that_is_removed_while_it_begins_to_host_leaves_no_subscription(
    layer: MessageLayer, connection: Connection, another: Connection, watching: Connection
) -> None:
    node = node_of(layer).identity.id
    async with connection.transaction():
        await connection.execute("SELECT pgchannels.host($1, 0, NULL, $2, '{}', false)", node, [ROOM])
        removing = asyncio.create_task(run(another.execute("SELECT pgchannels.remove_nodes($1)", [node])))
        await unless_it_waits(watching, removing)
    await within(removing)
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.subscription") == 0


async def test_position_of_an_address_is_behind_what_is_sent_to_it_while_its_hosting_waits(
    layer: MessageLayer, connection: Connection, another: Connection, watching: Connection
) -> None:
    await layer.publish("news", "so that there is a log")
    async with connection.transaction():
        await connection.execute("SELECT pgchannels.lock_addresses($1)", [ROOM])
        hosting = asyncio.create_task(
            run(
                another.fetchval(
                    "SELECT position FROM pgchannels.host($1, 0, NULL, $2, '{}', false)",
                    node_of(layer).identity.id,
                    [ROOM],
                )
            )
        )
        await unless_it_waits(watching, hosting)
        sent = await deliver_empty(connection, ROOM)
    position = await within(hosting)
    assert isinstance(position, int)
    assert position >= sent


async def deliver_empty(connection: Connection, address: str) -> int:
    """Send something to an address; returns its id."""
    sent: int = await connection.fetchval(DELIVER, [address])
    return sent


async def test_log_that_two_begin_at_the_same_time_begins_once(
    connection: Connection, another: Connection, watching: Connection
) -> None:
    begun = "SELECT identity FROM pgchannels.extent()"
    async with connection.transaction():
        first = await connection.fetchval(begun)
        beginning = asyncio.create_task(run(another.fetchval(begun)))
        await unless_it_waits(watching, beginning)
    assert await within(beginning) == first
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.log_state") == 1


async def test_log_goes_on_when_its_last_epoch_begins_again(connection: Connection) -> None:
    await connection.execute("UPDATE pgchannels.log SET epoch = 1022")
    ids = []
    for _ in range(3):
        ids.append(await deliver_empty(connection, ROOM))
        await connection.execute("TRUNCATE pgchannels.message, pgchannels.log_state, pgchannels.filled_slot")
    assert [message_id >> 53 for message_id in ids] == [1023] * 3
    assert ids == sorted(set(ids))


async def test_slot_is_not_full_before_the_batches_under_way_are_in_it(
    connection: Connection, another: Connection, watching: Connection
) -> None:
    await connection.execute("ALTER FUNCTION pgchannels.rotate() SET lock_timeout = '60s'")
    await deliver_empty(connection, "topic:asgi:news")
    await let_pass(connection, LONG_SECONDS)
    async with connection.transaction():
        await connection.execute("SELECT pgchannels.lock_addresses($1)", [ROOM])
        rotating = asyncio.create_task(run(another.fetchval("SELECT pgchannels.rotate()")))
        await unless_it_waits(watching, rotating)
        sent = await deliver_empty(connection, ROOM)
    assert await within(rotating)
    row = await connection.fetchrow("SELECT filled_until, last_id FROM pgchannels.log_state, pgchannels.filled_slot")
    assert row is not None
    assert sent <= row["last_id"] == row["filled_until"]


async def test_message_that_waits_for_a_rotation_comes_into_the_slot_that_follows(
    connection: Connection, another: Connection, watching: Connection
) -> None:
    await connection.execute("UPDATE pgchannels.log SET retention = '60 s'")
    await deliver_empty(connection, "topic:asgi:news")
    await let_pass(connection, LONG_SECONDS)
    async with connection.transaction():
        assert await rotate(connection)
        sending = asyncio.create_task(deliver_empty(another, ROOM))
        await unless_it_waits(watching, sending)
    sent = await within(sending)
    query = "SELECT m.slot = s.slot FROM pgchannels.message AS m, pgchannels.log_state AS s WHERE m.id = $1"
    assert await connection.fetchval(query, sent)
