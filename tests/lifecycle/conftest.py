"""Every test of this folder ends as it began: the same tasks, threads and sessions, and no complaint of asyncio."""

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping

import asyncpg
import pytest

from pgchannels import MessageLayer, Subscription
from tests.support.connections import has_connections
from tests.support.waiting import until, within

from .steps import SteppingLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """All tests run in a loop whose steps can be counted."""
    return {"stepping": SteppingLoop}


@pytest.fixture(autouse=True)
async def nothing_left(
    connection: "asyncpg.Connection[asyncpg.Record]", caplog: pytest.LogCaptureFixture
) -> AsyncIterator[None]:
    """Fail when the test leaves something behind."""
    tasks, threads = asyncio.all_tasks(), threads_of_layers()
    yield
    await until(lambda: has_connections(connection, 0))
    assert asyncio.all_tasks() - {asyncio.current_task()} <= tasks
    assert threads_of_layers() <= threads
    gc.collect()  # tasks and futures complain when they are collected
    assert not complaints(caplog)


def threads_of_layers() -> set[str]:
    """The names of the threads that layers have started."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("pgchannels")}


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What asyncio says of destroyed tasks and errors that nobody has seen."""
    records = [*caplog.get_records("setup"), *caplog.get_records("call"), *caplog.records]
    return [r.getMessage() for r in records if r.name == "asyncio" and r.levelno >= logging.ERROR]


class Probe:
    """Tries whether a layer still works."""

    def __init__(self, layer: MessageLayer, subscription: Subscription) -> None:
        self._layer = layer
        self._subscription = subscription
        self._number = 0

    async def __call__(self) -> None:
        """A message goes through the layer, and it is the only one."""
        self._number += 1
        position = await within(self._layer.publish("probe", self._number))
        message = await within(anext(self._subscription))
        assert (message.payload, message.position) == (self._number, position)


@pytest.fixture
async def probe(layer: MessageLayer) -> AsyncIterator[Probe]:
    """A probe of the layer of the test."""
    async with layer.subscribe("probe") as subscription:
        yield Probe(layer, subscription)
