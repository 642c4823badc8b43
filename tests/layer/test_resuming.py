"""Who leaves and resumes from the last position has every message once and in order, while others publish."""

import asyncio
from random import Random
from typing import Final

import pytest

from pgchannels import MessageLayer
from tests.support.resuming import Resuming
from tests.support.waiting import within

TOPICS: Final = ("room", "news")
ROUNDS: Final = 60
MOST_AT_ONCE: Final = 40
READERS: Final = 3


@pytest.mark.parametrize("seed", range(4))
async def test_reader_that_leaves_at_any_moment_misses_nothing_and_reads_nothing_twice(
    layer: MessageLayer, other_layer: MessageLayer, database_url: str, seed: int
) -> None:
    chance, threaded = Random(seed), MessageLayer(database_url)
    begin = {topic: await layer.publish(topic, "seen") for topic in TOPICS}
    counts = [[chance.randint(1, MOST_AT_ONCE) for _ in range(ROUNDS)] for _ in range(3)]
    readers = [
        Resuming(one, topic, begin[topic], Random(seed + number))
        for number in range(READERS)
        for topic in TOPICS
        for one in (layer, other_layer)
    ]
    publishing = [
        publish(layer, counts[0]),
        publish(other_layer, counts[1]),
        asyncio.to_thread(publish_in_thread, threaded, counts[2]),  # by a loop of its own
    ]
    total = sum(map(sum, counts))
    await within(asyncio.gather(*publishing, *(reader.read(total) for reader in readers)))
    for topic in TOPICS:
        whole = await layer.history(topic, since=begin[topic], limit=10**6)
        assert len(whole) == total
        assert all(reader.received == whole for reader in readers if reader.topic == topic)
    assert min(reader.leaves for reader in readers) > 5
    threaded.sync.close()


async def publish(layer: MessageLayer, counts: list[int]) -> None:
    """Publish to all topics, so many at once, some too large for a notification."""
    for count in counts:
        await layer.publish_many(batch(count))


def publish_in_thread(layer: MessageLayer, counts: list[int]) -> None:
    """The same, without an event loop."""
    for count in counts:
        layer.sync.publish_many(batch(count))


def batch(count: int) -> list[tuple[str, str]]:
    """So many messages to each topic."""
    return [(topic, "x" * (8_000 if n % 9 == 0 else 10)) for n in range(count) for topic in TOPICS]
