"""A process that publishes: `python -m tests.processes.publisher URL NAME MESSAGES TOPICS`, then ends."""

import asyncio
import sys

from pgchannels import MessageLayer

CONCURRENT = 20


async def publish(url: str, name: str, messages: int, topics: int) -> None:
    """Publish numbered messages over the topics; one task a share of the topics, so that each topic has an order."""
    async with MessageLayer(url) as layer:
        await asyncio.gather(*[_publish_share(layer, name, share, messages, topics) for share in range(CONCURRENT)])


async def _publish_share(layer: MessageLayer, name: str, share: int, messages: int, topics: int) -> None:
    for number in range(messages):
        topic = number % topics
        if topic % CONCURRENT == share:
            await layer.publish(f"topic{topic}", {"sender": name, "number": number})


if __name__ == "__main__":
    asyncio.run(publish(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
