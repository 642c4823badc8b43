"""The three ways of a message: by a topic, to a channel of a node, by a work queue."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeAlias

import asyncpg

from pgchannels import Gap, MessageLayer, Subscription
from pgchannels.django import PostgresChannelLayer
from pgchannels.names import node_address
from pgchannels.process.node import Node
from pgchannels.process.process import Process

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Road(Protocol):
    """Where its messages lie in the log, and how its receiver receives, told of `gaps`; any layer sends."""

    address: str
    channel: str | None
    gaps: list[Gap]

    async def send(self, layer: MessageLayer, payload: object) -> object: ...

    async def receive(self) -> Any: ...


class _ByTopic:
    address = "topic:asgi:room"
    channel: str | None = None

    def __init__(self, subscription: Subscription, gaps: list[Gap]) -> None:
        self.gaps = gaps
        self._subscription = subscription

    async def send(self, layer: MessageLayer, payload: object) -> object:
        return await layer.publish("room", payload)

    async def receive(self) -> Any:
        return (await anext(self._subscription)).payload


class _ByChannel:
    def __init__(self, receiver: MessageLayer, name: str, *, address: str) -> None:
        self.address = address
        self.channel = name if "!" in name else None
        self.gaps: list[Gap] = []
        self._receiver = receiver
        self._name = name

    async def send(self, layer: MessageLayer, payload: object) -> object:
        return await layer.send(self._name, payload)

    async def receive(self) -> Any:
        return await self._receiver.receive(self._name, on_gap=self.gaps.append)


@asynccontextmanager
async def topic_road(receiver: MessageLayer) -> AsyncIterator[Road]:
    """By the topic `room`, to which the receiver subscribes meanwhile."""
    gaps: list[Gap] = []
    async with receiver.subscribe("room", on_gap=gaps.append) as subscription:
        yield _ByTopic(subscription, gaps)


@asynccontextmanager
async def channel_road(receiver: MessageLayer) -> AsyncIterator[Road]:
    """To a new channel of the receiver."""
    channel = await receiver.new_channel()
    yield _ByChannel(receiver, channel, address=node_address("asgi", node_of(receiver).identity.name))


@asynccontextmanager
async def queue_road(receiver: MessageLayer) -> AsyncIterator[Road]:
    """By the work queue `jobs`."""
    yield _ByChannel(receiver, "jobs", address="queue:asgi:jobs")


ROADS: Final = {"topic": topic_road, "channel": channel_road, "queue": queue_road}


def node_of(layer: MessageLayer | PostgresChannelLayer) -> Node:
    """The node of an open layer."""
    node = layer._process.here()
    assert isinstance(node, Node)
    return node


def process_of(layer: MessageLayer | PostgresChannelLayer) -> Process:
    """What a layer with one database runs on."""
    assert isinstance(layer._process, Process)
    return layer._process


async def deliver(connection: Connection, address: str, channel: str | None, envelopes: Sequence[bytes]) -> None:
    """Put bytes as they are into the log, as messages to an address."""
    await connection.execute(
        """
        SELECT delivered.first_id
        FROM cardinality($3::bytea[]) AS n, pgchannels.deliver(
            (random() * 2^62)::bigint, 'infinity', array_fill($1::text, ARRAY[n]), array_fill($2::text, ARRAY[n]), $3,
            array_fill(1000000, ARRAY[n]), NULL, 60
        ) AS delivered
        """,
        address,
        channel,
        envelopes,
    )
