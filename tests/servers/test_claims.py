"""Acknowledged work from queues whose messages lie on several servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import asyncpg
import pytest

from pgchannels import MessageLayer, Work
from tests.servers.topics import ON_A, ON_B, name_on
from tests.support.roads import Connection
from tests.support.waiting import LIMIT_SECONDS, until, within

QUEUE = "queue:asgi:jobs"
TOPICS = {"a": ON_A, "b": ON_B}
NO_HEARTBEAT = 3600  # seconds: nothing is mended by chance


class WorkFailedError(Exception):
    """What a block raises in these tests."""


@pytest.fixture
async def connections(urls: dict[str, str]) -> AsyncIterator[dict[str, Connection]]:
    """A connection to each server, where a topic brings its messages to the queue `jobs`."""
    async with AsyncExitStack() as stack:
        connections = {server: await asyncpg.connect(url) for server, url in urls.items()}
        for server, connection in connections.items():
            stack.push_async_callback(connection.close)
            await connection.execute(
                "INSERT INTO pgchannels.member VALUES ($1, $2, 1000)", f"topic:asgi:{TOPICS[server]}", QUEUE
            )
        yield connections


async def under_work(connections: dict[str, Connection], queue: str = QUEUE) -> dict[str, int]:
    """How many messages of a queue are under work, by server."""
    count = "SELECT count(*) FROM pgchannels.open_work($1)"
    return {server: await connection.fetchval(count, queue) for server, connection in connections.items()}


async def has_no_work(connections: dict[str, Connection], queue: str = QUEUE) -> bool:
    """Whether nothing is under work."""
    return not any((await under_work(connections, queue)).values())


async def work_at(layer: MessageLayer, queue: str = "jobs") -> tuple[object, int]:
    """Claim, and let the block end well; returns the payload and the attempts."""
    async with layer.claim(queue) as work:
        return work.payload, work.attempts


async def fail_at(layer: MessageLayer, queue: str = "jobs", *, attempts: int = 5) -> tuple[object, int]:
    """Claim, and raise in the block; returns the payload and the attempts."""
    seen: list[Work] = []
    with suppress(WorkFailedError):
        async with layer.claim(queue, attempts=attempts) as work:
            seen.append(work)
            raise WorkFailedError
    return seen[0].payload, seen[0].attempts


@pytest.mark.parametrize("server", ["a", "b"])
async def test_message_is_acknowledged_on_the_server_that_it_came_from(
    layer: MessageLayer, other: MessageLayer, connections: dict[str, Connection], server: str
) -> None:
    queue = name_on(server, of="queue")
    address = f"queue:asgi:{queue}"
    position = await layer.send(queue, "x")
    async with other.claim(queue) as work:
        assert (work.payload, work.position) == ("x", position)
        assert work.position.server == server
        assert await under_work(connections, address) == {"a": 0, "b": 0} | {server: 1}
    await until(lambda: has_no_work(connections, address))
    give_back = "SELECT pgchannels.give_back_abandoned($1)"
    assert await connections[server].fetchval(give_back, address) is None


@pytest.mark.parametrize("server", ["a", "b"])
async def test_message_that_fails_goes_back_on_its_server_and_is_a_dead_letter_there_in_the_end(
    layer: MessageLayer, other: MessageLayer, connections: dict[str, Connection], server: str
) -> None:
    await layer.publish(TOPICS[server], "x")
    assert await within(fail_at(layer, attempts=2)) == ("x", 1)
    assert await within(fail_at(other, attempts=2)) == ("x", 2)
    async with layer.claim("jobs.dead") as work:
        assert (work.payload, work.attempts, work.position.server) == ("x", 3, server)
    await until(lambda: has_no_work(connections, f"{QUEUE}.dead"))


async def test_message_that_cannot_be_read_is_a_dead_letter_on_its_server(
    layer: MessageLayer, urls: dict[str, str], connections: dict[str, Connection]
) -> None:
    assert connections
    async with MessageLayer(urls, symmetric_encryption_keys=["secret"]) as with_keys:
        working = asyncio.create_task(work_at(layer))
        for topic in TOPICS.values():
            await with_keys.publish(topic, "sealed")
        assert [await within(work_at(with_keys, "jobs.dead")) for _ in TOPICS] == [("sealed", 6)] * 2
        await layer.send("jobs", "for all")
        assert await within(working) == ("for all", 1)


async def test_worker_takes_from_all_servers(layer: MessageLayer, connections: dict[str, Connection]) -> None:
    for number, topic in enumerate((ON_B, ON_A)):
        await layer.publish(topic, number)
    assert sorted([await within(work_at(layer)) for _ in range(2)]) == [(0, 1), (1, 1)]
    await until(lambda: has_no_work(connections))


async def test_what_was_taken_on_another_server_goes_back_at_once_if_its_time_runs(
    urls: dict[str, str], connections: dict[str, Connection]
) -> None:
    async with (
        MessageLayer(urls, heartbeat=NO_HEARTBEAT) as layer,
        MessageLayer(urls, heartbeat=NO_HEARTBEAT) as other,
    ):
        for topic in TOPICS.values():
            await layer.publish(topic, topic)
        async with (
            asyncio.timeout(LIMIT_SECONDS),
            layer.claim("jobs", visible_after=3600) as one,
            other.claim("jobs", visible_after=3600) as two,
        ):
            assert {one.payload, two.payload} == {ON_A, ON_B}
            assert (one.attempts, two.attempts) == (1, 1)
        await until(lambda: has_no_work(connections))


async def test_workers_of_two_layers_do_every_job_of_both_servers_once(
    layer: MessageLayer, other: MessageLayer, connections: dict[str, Connection]
) -> None:
    done: list[object] = []
    finished = asyncio.Event()

    async def worker(layer: MessageLayer) -> None:
        while True:
            async with layer.claim("jobs") as work:
                done.append(work.payload)
                if len(done) == 100:
                    finished.set()

    workers = [asyncio.create_task(worker(each)) for each in (layer, other) for _ in range(2)]
    await layer.publish_many([((ON_A, ON_B)[number % 2], number) for number in range(100)])
    await within(finished.wait())
    for task in workers:
        task.cancel()
    await asyncio.wait(workers)
    assert sorted(done, key=str) == sorted(range(100), key=str)
    await until(lambda: has_no_work(connections))


async def test_claims_that_are_cancelled_lose_nothing(urls: dict[str, str], connections: dict[str, Connection]) -> None:
    assert connections
    async with MessageLayer(urls, heartbeat=0.2) as layer:
        done = []
        for number in range(20):
            waiting = asyncio.ensure_future(work_at(layer))
            await asyncio.sleep(0)
            await layer.publish((ON_A, ON_B)[number % 2], number)
            waiting.cancel()
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                done.append(waiting.result())
        done += [await within(work_at(layer)) for _ in range(20 - len(done))]
        assert sorted(done) == [(number, 1) for number in range(20)]


async def test_closing_gives_back_what_is_under_work_on_each_server(
    layer: MessageLayer, urls: dict[str, str], connections: dict[str, Connection]
) -> None:
    closing = MessageLayer(urls)
    await closing.open()
    for topic in TOPICS.values():
        await layer.publish(topic, topic)
    async with asyncio.timeout(LIMIT_SECONDS), closing.claim("jobs") as one, closing.claim("jobs") as two:
        assert {one.payload, two.payload} == {ON_A, ON_B}
        await within(closing.close())
    assert sorted([await within(work_at(layer)) for _ in range(2)]) == sorted([(ON_A, 2), (ON_B, 2)])
    await until(lambda: has_no_work(connections))
