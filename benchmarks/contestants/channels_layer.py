"""Layers of Django Channels: a member is a channel of its own in a group, as a consumer is."""

from typing import Any

from benchmarks.contestants.contestant import Addresses, Contestant, Member, Message


class ChannelsLayer(Contestant):
    """Everything but how to make and to close the layer is the same for all of them."""

    def __init__(self, addresses: Addresses, *, capacity: int) -> None:
        super().__init__(addresses, capacity=capacity)
        self.layer: Any = self.make_layer()

    def make_layer(self) -> Any:
        """The layer, with the library's own defaults but for the capacity."""
        raise NotImplementedError

    async def close(self) -> None:
        await self.layer.close()

    async def join(self, group: str) -> Member:
        channel = await self.layer.new_channel()
        await self.layer.group_add(group, channel)
        return ChannelInGroup(self.layer, group, channel)

    async def publish(self, group: str, message: Message) -> None:
        await self.layer.group_send(group, message)

    async def send(self, queue: str, message: Message) -> None:
        await self.layer.send(queue, message)

    async def receive(self, queue: str) -> Message:
        message: Message = await self.layer.receive(queue)
        return message


class ChannelInGroup(Member):
    """A channel of this process that is in a group."""

    def __init__(self, layer: Any, group: str, channel: str) -> None:
        self._layer = layer
        self._group = group
        self._channel = channel

    async def receive(self) -> Message:
        message: Message = await self._layer.receive(self._channel)
        return message

    async def leave(self) -> None:
        await self._layer.group_discard(self._group, self._channel)
