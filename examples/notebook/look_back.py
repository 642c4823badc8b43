# %% [markdown]
# # Look into a topic
#
# Replay by time, positions, and live messages, cell by cell. `await` stands at the top level, as in any notebook.

# %% Connect: the layer stays open until the last cell
import asyncio
import os
from datetime import timedelta

from pgchannels import MessageLayer

layer = MessageLayer(os.environ["PGCHANNELS_URL"])
await layer.open()

# %% Something to look at
for celsius in (19.5, 20.0, 20.5):
    await layer.publish("sensors.kitchen", {"celsius": celsius})

# %% What was published in the last minute, oldest first
for message in await layer.history("sensors.kitchen", since=timedelta(minutes=1)):
    print(f"{message.published_at:%H:%M:%S} {message.position} {message.payload}")

# %% Where the topic stands now: remember it
position = await layer.position("sensors.kitchen")
print("the topic stands at", position)

# %% Publish more, and read only that
for celsius in (21.0, 21.5):
    await layer.publish("sensors.kitchen", {"celsius": celsius})
print("after it:", [message.payload["celsius"] for message in await layer.history("sensors.kitchen", since=position)])


# %% Live: first what came after the position, then every new message, until it is warm
async def measure():
    """Stands for the program that publishes."""
    for celsius in (22.0, 22.5):
        await layer.publish("sensors.kitchen", {"celsius": celsius})


async with layer.subscribe("sensors.kitchen", since=position) as subscription:
    measuring = asyncio.create_task(measure())
    async for message in subscription:
        print("received", message.payload)
        if message.payload["celsius"] > 22:
            break
    await measuring
print("resume from", subscription.position)

# %% Close
await layer.close()
