"""Traffic of every kind through every fault of a connection: all of it arrives, once and in order."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg
import pytest

from pgchannels import MessageLayer
from tests.support.proxy import Proxy
from tests.support.roads import node_of
from tests.support.traffic import Traffic, traffic
from tests.support.waiting import within

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SESSIONS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
BEHIND, BESIDE, MEANWHILE = 0, 1, 2  # senders: one behind the proxy, and two beside it that no fault touches


@dataclass(frozen=True, slots=True)
class Scene:
    """A receiver and a sender behind a proxy, and senders beside it."""

    proxy: Proxy
    connection: Connection
    receiver: MessageLayer
    traffic: Traffic


Fault = Callable[[Scene], Awaitable[None]]


async def cut(scene: Scene) -> None:
    scene.proxy.cut()


async def refuse_for_a_while(scene: Scene) -> None:
    scene.proxy.refuse()
    scene.proxy.cut()
    await scene.traffic.send(10, senders=[MEANWHILE])
    scene.proxy.restore()


async def terminate_backends(scene: Scene) -> None:
    await scene.connection.execute(f"SELECT pg_terminate_backend(pid) {SESSIONS}")


async def freeze_for_a_while(scene: Scene) -> None:
    scene.proxy.freeze()
    await scene.traffic.send(10, senders=[MEANWHILE])
    scene.proxy.restore()


async def freeze_until_given_up(scene: Scene) -> None:
    scene.proxy.freeze(new_connections=False)
    await scene.traffic.send(10, senders=[MEANWHILE])
    await scene.traffic.arriving()
    scene.proxy.restore()
    await scene.proxy.settled()


async def freeze_and_cut(scene: Scene) -> None:
    scene.proxy.freeze(new_connections=False)
    await scene.traffic.send(10, senders=[MEANWHILE])
    scene.proxy.cut()
    await scene.traffic.arriving()
    scene.proxy.restore()
    await scene.proxy.settled()


async def freeze_answers_and_cut(scene: Scene) -> None:
    scene.proxy.freeze("to_client")
    await scene.traffic.send(10, senders=[MEANWHILE])
    scene.proxy.cut()
    scene.proxy.restore()


async def freeze_and_drop(scene: Scene) -> None:
    scene.proxy.freeze()
    await scene.traffic.send(10, senders=[MEANWHILE])
    scene.proxy.restore(held="drop")


async def slow_down(scene: Scene) -> None:
    scene.proxy.slow(bytes_per_second=500_000)
    await scene.traffic.send(10, senders=[MEANWHILE])
    await scene.traffic.arriving()
    scene.proxy.restore()


async def undo_listen(scene: Scene) -> None:
    node = node_of(scene.receiver)
    listening = node._listener._connection
    if listening is not None:
        with suppress(asyncpg.PostgresConnectionError, asyncpg.InterfaceError):  # just being replaced
            await listening.execute("UNLISTEN *")


FAULTS = [
    cut,
    refuse_for_a_while,
    terminate_backends,
    freeze_for_a_while,
    freeze_until_given_up,
    freeze_and_cut,
    freeze_answers_and_cut,
    freeze_and_drop,
    slow_down,
    undo_listen,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_traffic_goes_on_without_loss_double_or_disorder(
    fault: Fault, proxy: Proxy, database_url: str, connection: Connection
) -> None:
    async with (
        MessageLayer(proxy.url, heartbeat=0.3) as receiver,
        MessageLayer(proxy.url, heartbeat=0.3) as behind,
        MessageLayer(database_url) as beside,
    ):
        async with traffic([behind, beside, beside], receiver) as running:
            scene = Scene(proxy, connection, receiver, running)
            for _ in range(2):
                async with asyncio.TaskGroup() as sending:
                    sending.create_task(within(running.send(50, senders=[BEHIND, BESIDE])))
                    await within(running.arriving())
                    await within(fault(scene))
            await within(proxy.settled())
            await within(running.finish())
        running.verify()
        assert [stream.gaps for stream in running.streams] == [[], [], []]
