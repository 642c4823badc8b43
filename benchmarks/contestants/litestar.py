"""Litestar's channels on PostgreSQL: NOTIFY with the message in it, nothing stored."""

import json
from typing import Any

from litestar.channels import ChannelsPlugin
from litestar.channels.backends.asyncpg import AsyncPgChannelsBackend

from benchmarks.contestants.contestant import Addresses, Contestant, Member, Message


class Litestar(Contestant):
    """Takes JSON. `wait_published`, as the others, returns when it is published; it connects for each message."""

    def __init__(self, addresses: Addresses, *, capacity: int) -> None:
        super().__init__(addresses, capacity=capacity)
        self._plugin: Any = ChannelsPlugin(AsyncPgChannelsBackend(addresses.postgres), arbitrary_channels_allowed=True)

    async def open(self) -> None:
        await self._plugin.__aenter__()

    async def close(self) -> None:
        await self._plugin.__aexit__(None, None, None)

    async def join(self, group: str) -> Member:
        return Subscribed(self._plugin, await self._plugin.subscribe(group))

    async def publish(self, group: str, message: Message) -> None:
        await self._plugin.wait_published(message, group)


class Subscribed(Member):
    """A subscriber of the plugin."""

    def __init__(self, plugin: Any, subscriber: Any) -> None:
        self._plugin = plugin
        self._subscriber = subscriber
        self._events = subscriber.iter_events()

    async def receive(self) -> Message:
        message: Message = json.loads(await anext(self._events))
        return message

    async def leave(self) -> None:
        await self._plugin.unsubscribe(self._subscriber)
