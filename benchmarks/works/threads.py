"""Eight threads without an event loop send to a group, as WSGI views do; another process receives."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from asgiref.sync import async_to_sync

from benchmarks.actor import Stage
from benchmarks.contestants.channels_layer import ChannelsLayer
from benchmarks.contestants.contestant import CannotDo, Message
from benchmarks.crew import Crew, Figures
from benchmarks.works.messages import SMALL_BYTES, last_of, messages
from benchmarks.works.throughput import rate_of, receive_all
from benchmarks.works.work import CHANNELS, CORE, OURS, PUBSUB, Figure, Goal, Scale, Work, except_for

_GROUP: Final = "threads"
_THREADS: Final = 8

Send = Callable[[str, Message], object]


async def send(stage: Stage, *, seconds: float, face: str) -> Figures:
    """Send from threads of this process, whose own event loop never touches the layer."""
    assert isinstance(stage.contestant, ChannelsLayer)
    layer = stage.contestant.layer
    if not hasattr(layer, face) and face != "async_to_sync":
        raise CannotDo(f"has no {face!r} yet")
    await stage.ready()
    return await asyncio.to_thread(_send_from_threads, _FACES[face](layer), seconds)


async def receive(stage: Stage) -> Figures:
    """Receive what they send."""
    member = await stage.contestant.join(_GROUP)
    await stage.ready()
    return await receive_all(member)


def _send_from_threads(send: Send, seconds: float) -> Figures:
    send(_GROUP, next(messages(SMALL_BYTES)))  # connects
    started = time.perf_counter()
    counts = [0] * _THREADS
    threads = [
        threading.Thread(target=_send, args=(send, messages(SMALL_BYTES), started + seconds, counts, number))
        for number in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    send(_GROUP, last_of(sum(counts) + 1))
    return {"started": started, "sent": sum(counts) + 1}


def _send(send: Send, made: Iterator[Message], until: float, counts: list[int], number: int) -> None:
    while time.perf_counter() < until:
        send(_GROUP, next(made))
        counts[number] += 1


# How a thread without an event loop may send, by name.
_FACES: Final[dict[str, Callable[[Any], Send]]] = {
    "async_to_sync": lambda layer: async_to_sync(layer.group_send),
    "sync": lambda layer: layer.sync.group_send,
}


async def _measure(crew: Crew, scale: Scale) -> Figures:
    return await _measure_face(crew, scale, "async_to_sync")


async def _measure_sync(crew: Crew, scale: Scale) -> Figures:
    return await _measure_face(crew, scale, "sync" if crew.contestant == OURS else "async_to_sync")


async def _measure_face(crew: Crew, scale: Scale, face: str) -> Figures:
    received, sent = await crew.play_together(
        ("threads.receive", {}), ("threads.send", {"seconds": scale.seconds, "face": face})
    )
    return rate_of(sent, received)


_FIGURES: Final = {"rate": Figure("messages", "/s")}
_ALL: Final = except_for("in-memory", of=CHANNELS)
_LEFT_OUT: Final = {"in-memory": "one event loop only"}

WORKS: Final = (
    Work(
        name="threads",
        title=f"{_THREADS} threads calling async_to_sync(group_send)",
        contestants=_ALL,
        measure=_measure,
        figures=_FIGURES,
        goals=(Goal("rate", PUBSUB, at_least=5), Goal("rate", CORE, at_least=5)),
        processes=2,
        left_out=_LEFT_OUT,
    ),
    Work(
        name="threads-sync",
        title=f"{_THREADS} threads calling sync.group_send (the others: async_to_sync)",
        contestants=(OURS, PUBSUB, CORE),
        measure=_measure_sync,
        figures=_FIGURES,
        goals=(Goal("rate", PUBSUB, at_least=10), Goal("rate", CORE, at_least=10)),
        processes=2,
    ),
)
