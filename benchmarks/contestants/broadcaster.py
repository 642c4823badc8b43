"""broadcaster on PostgreSQL: NOTIFY with the message in it, nothing stored."""

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from typing import Any

from broadcaster import Broadcast

from benchmarks.contestants.contestant import Addresses, Contestant, Member, Message


class Broadcaster(Contestant):
    """Takes text. Its one connection refuses two statements at a time: callers must take turns, as here."""

    def __init__(self, addresses: Addresses, *, capacity: int) -> None:
        super().__init__(addresses, capacity=capacity)
        self._broadcast: Any = Broadcast(addresses.postgres)
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        await self._broadcast.connect()

    async def close(self) -> None:
        await self._broadcast.disconnect()

    async def join(self, group: str) -> Member:
        subscription = self._broadcast.subscribe(group)
        async with self._turn:
            return Subscribed(subscription, await subscription.__aenter__())

    async def publish(self, group: str, message: Message) -> None:
        text = json.dumps(message)
        async with self._turn:
            await self._broadcast.publish(group, text)


class Subscribed(Member):
    """A subscription to one channel of broadcaster's."""

    def __init__(self, subscription: AbstractAsyncContextManager[Any], subscriber: Any) -> None:
        self._subscription = subscription
        self._subscriber = subscriber

    async def receive(self) -> Message:
        message: Message = json.loads((await self._subscriber.get()).message)
        return message

    async def leave(self) -> None:
        await self._subscription.__aexit__(None, None, None)
