"""`python -m tests.patroni.measure`: how long sends and deliveries pause when another server becomes the primary."""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Final

from pgchannels import DatabaseUnavailable, MessageLayer
from pgchannels.database import migrations
from tests.patroni.test_failover import hanging, isolated, killed, switchover
from tests.support.patroni import PatroniCluster

_FAULTS: Final[dict[str, Callable[[PatroniCluster], AbstractContextManager[None]]]] = {
    "switchover": switchover,
    "killed": killed,
    "isolated": isolated,
    "hanging": hanging,
}
_EVERY_SECONDS: Final = 0.01
_SEND_TIMEOUT_SECONDS: Final = 120
_SETTLE_SECONDS: Final = 1

new_layer = partial(MessageLayer, send_timeout=_SEND_TIMEOUT_SECONDS)


@dataclass(slots=True)
class Times:
    """When sends returned and messages arrived."""

    sent: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pauses:
    """In seconds: without a primary, without a send, without a delivery; and of a send behind the new primary."""

    leaderless: float
    sends: float
    deliveries: float
    behind_leader: float


async def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a line for each fault and way."""
    options = _parser().parse_args(arguments)
    with PatroniCluster(synchronous=options.synchronous) as cluster:
        await migrations.upgrade(cluster.url())
        for way, url in {"hosts": cluster.url(), "HAProxy": cluster.proxied_url}.items():
            for name in options.only or _FAULTS:
                pauses = [await _measured(cluster, url, _FAULTS[name]) for _ in range(options.rounds)]
                print(f"{name:10} {way:8}", *_figures(pauses), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.patroni.measure", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(_FAULTS))
    parser.add_argument("--synchronous", action="store_true")
    return parser


def _figures(pauses: Sequence[Pauses]) -> list[str]:
    return [
        f"{figure.replace('_', ' ')} {statistics.median(values):.1f} s (at most {max(values):.1f})"
        for figure in Pauses.__slots__
        for values in [[getattr(one, figure) for one in pauses]]
    ]


async def _measured(
    cluster: PatroniCluster, url: str, fault: Callable[[PatroniCluster], AbstractContextManager[None]]
) -> Pauses:
    await asyncio.to_thread(cluster.wait_until_whole)
    async with _traffic(url) as times:
        await asyncio.sleep(_SETTLE_SECONDS)
        happening, began = fault(cluster), time.monotonic()
        await asyncio.to_thread(happening.__enter__)
        leads = time.monotonic()
        while not (times.sent[-1] > leads and times.received[-1] > leads):  # noqa: ASYNC110
            await asyncio.sleep(_EVERY_SECONDS)
        await asyncio.sleep(_SETTLE_SECONDS)
        await asyncio.to_thread(happening.__exit__, None, None, None)
    behind = next(moment for moment in times.sent if moment > leads) - leads
    return Pauses(leads - began, _longest(times.sent, began), _longest(times.received, began), behind)


def _longest(moments: Sequence[float], began: float) -> float:
    """The longest pause that ended after a moment."""
    return max(later - earlier for earlier, later in pairwise(moments) if later > began)


@asynccontextmanager
async def _traffic(url: str) -> AsyncIterator[Times]:
    times = Times()
    async with (
        new_layer(url) as sender,
        new_layer(url) as receiver,
        receiver.subscribe("room", on_gap=lambda _: None) as subscription,
    ):
        tasks = [asyncio.create_task(_send(sender, times)), asyncio.create_task(_receive(subscription, times))]
        try:
            yield times
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _send(layer: MessageLayer, times: Times) -> None:
    while True:
        with suppress(DatabaseUnavailable):  # what was on its way to the former primary may be lost
            await layer.publish("room", "now")
            times.sent.append(time.monotonic())
        await asyncio.sleep(_EVERY_SECONDS)


async def _receive(subscription: Any, times: Times) -> None:
    async for _ in subscription:
        times.received.append(time.monotonic())


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
