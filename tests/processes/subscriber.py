"""A process that subscribes: `python -m tests.processes.subscriber URL MESSAGES TOPICS`.

Prints `ready`, then each message as a line of JSON, and ends after the last.
"""

import asyncio
import json
import sys

from pgchannels import MessageLayer


async def subscribe(url: str, messages: int, topics: int) -> None:
    """Print what all topics bring."""
    names = [f"topic{number}" for number in range(topics)]
    async with MessageLayer(url) as layer, layer.subscribe(*names, capacity=messages) as subscription:
        print("ready", flush=True)
        for _ in range(messages):
            message = await anext(subscription)
            print(json.dumps([message.topic, message.payload, str(message.position)]))


if __name__ == "__main__":
    asyncio.run(subscribe(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
