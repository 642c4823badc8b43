"""pgchannels by its plain API."""

from benchmarks.contestants.contestant import Addresses, Contestant, Member, Message
from pgchannels import MessageLayer
from pgchannels.subscription import Subscription


class PgchannelsApi(Contestant):
    """`async with MessageLayer(…)`, `publish` and `subscribe`."""

    def __init__(self, addresses: Addresses, *, capacity: int) -> None:
        super().__init__(addresses, capacity=capacity)
        self.layer = MessageLayer(addresses.postgres, capacity=capacity)

    async def open(self) -> None:
        await self.layer.open()

    async def close(self) -> None:
        await self.layer.close()

    async def join(self, group: str) -> Member:
        subscription = self.layer.subscribe(group)
        await subscription.__aenter__()
        return Subscribed(subscription)

    async def publish(self, group: str, message: Message) -> None:
        await self.layer.publish(group, message)

    async def send(self, queue: str, message: Message) -> None:
        await self.layer.send(queue, message)

    async def receive(self, queue: str) -> Message:
        message: Message = await self.layer.receive(queue)
        return message


class PgchannelsClaim(PgchannelsApi):
    """`claim` in place of `receive`: each message is acknowledged."""

    async def receive(self, queue: str) -> Message:
        async with self.layer.claim(queue) as work:
            message: Message = work.payload
            return message


class Subscribed(Member):
    """A subscription to one topic."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def receive(self) -> Message:
        message: Message = (await anext(self._subscription)).payload
        return message

    async def leave(self) -> None:
        await self._subscription.__aexit__(None, None, None)
