"""The moments of a node that tests of its receiving wait for, and make."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import asyncpg

from pgchannels import MessageLayer, Subscription
from pgchannels.process.node import Node
from tests.support.gates import Gate
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.waiting import until, within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def so(condition: Callable[[], bool]) -> None:
    """Return once something is so on this node."""
    await until(lambda: asyncio.sleep(0, condition()))


async def received(subscription: Subscription, told: list[object], count: int) -> list[object]:
    """The next payloads, with the gaps that `told` takes at their places."""
    for _ in range(count):
        told.append((await within(anext(subscription))).payload)  # noqa: PERF401 (a gap comes while this waits)
    return told


async def beat(layer: MessageLayer) -> None:
    """Return once the node has beaten and read all that this asked for."""
    node = node_of(layer)
    with Gate(node.receiver, "beat") as gate:
        node.beat_now()
        await within(gate.reached())
        gate.open()
        await within(gate.done())
    await is_live(node)


async def is_live(node: Node) -> None:
    await so(lambda: node.receiver.catch_up.is_live)


async def come_back(layer: MessageLayer, proxy: Proxy) -> None:
    """Let the node through, and return once it listens again."""
    listener = node_of(layer)._listener
    before = listener.reconnected
    proxy.restore()
    await so(lambda: listener.reconnected > before)


def cut_off(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()


async def forget_all_nodes(connection: Connection) -> None:
    await connection.execute("DELETE FROM pgchannels.node; DELETE FROM pgchannels.subscription")
