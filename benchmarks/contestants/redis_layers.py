"""The two layers of channels_redis.

A client of Redis opens a hundred connections at most by default: too few for the core layer with a hundred senders.
"""

import asyncio
from typing import Any, Final

from channels_redis.core import RedisChannelLayer
from channels_redis.pubsub import RedisPubSubChannelLayer

from benchmarks.contestants.channels_layer import ChannelsLayer

_CONNECTIONS: Final = 1_000


class RedisCore(ChannelsLayer):
    """The layer that keeps messages in sorted sets."""

    def make_layer(self) -> Any:
        return RedisChannelLayer(
            hosts=[{"address": self.addresses.redis, "max_connections": _CONNECTIONS}], capacity=self.capacity
        )

    async def close(self) -> None:
        await self.layer.close_pools()


class RedisPubSub(ChannelsLayer):
    """The layer that publishes; it has no capacity."""

    def make_layer(self) -> Any:
        return RedisPubSubChannelLayer(hosts=[self.addresses.redis])

    async def close(self) -> None:
        await self.layer.flush()  # its way to close connections
        self.layer._layers.pop(asyncio.get_running_loop(), None)
