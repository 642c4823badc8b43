"""Messages a second, from the first call to the last delivery: 100 senders, each one message after another."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from benchmarks.actor import Stage
from benchmarks.contestants.bare import Bare
from benchmarks.contestants.contestant import Contestant, Member, Message
from benchmarks.crew import Crew, Figures
from benchmarks.works.messages import LARGE_BYTES, SMALL_BYTES, is_last, last_of, messages
from benchmarks.works.work import EVERYBODY, OURS, PUBSUB, Figure, Goal, Scale, Work, except_for

SENDERS: Final = 100
_GROUP: Final = "throughput"
_WARM_UP_SECONDS: Final = 0.2
_SILENCE_SECONDS: Final = 5


async def in_one_process(stage: Stage, *, size: int, seconds: float) -> Figures:
    """Send and receive in this process."""
    contestant = stage.contestant
    await contestant.open()
    member = await contestant.join(_GROUP)
    await _once(contestant, member, size, min(seconds, _WARM_UP_SECONDS))
    return await _once(contestant, member, size, seconds)


async def send(stage: Stage, *, size: int, seconds: float) -> Figures:
    """Send from this process."""
    await stage.contestant.open()
    await stage.ready()
    await send_for(stage.contestant, size, min(seconds, _WARM_UP_SECONDS))
    await asyncio.sleep(0.1)
    started = time.perf_counter()
    sent = await send_for(stage.contestant, size, seconds)
    return {"started": started, "sent": sent}


async def receive(stage: Stage) -> Figures:
    """Receive in this process what others send."""
    await stage.contestant.open()
    member = await stage.contestant.join(_GROUP)
    await stage.ready()
    await receive_all(member)
    return await receive_all(member)


async def _once(contestant: Contestant, member: Member, size: int, seconds: float) -> Figures:
    started = time.perf_counter()
    receiving = asyncio.create_task(receive_all(member))
    sent = await send_for(contestant, size, seconds)
    return rate_of({"started": started, "sent": sent}, await receiving)


async def send_for(contestant: Contestant, size: int, seconds: float) -> int:
    """All senders for some seconds, then the message that says how many there were; returns that."""
    made = messages(size)
    until = time.perf_counter() + seconds
    if isinstance(contestant, Bare):
        sent = await _send_batches(contestant, made, until)
    else:
        sent = sum(await asyncio.gather(*[_send(contestant, made, until) for _ in range(SENDERS)]))
    await contestant.publish(_GROUP, last_of(sent))
    return sent


async def _send(contestant: Contestant, made: Iterator[Message], until: float) -> int:
    sent = 0
    while time.perf_counter() < until:
        await contestant.publish(_GROUP, next(made))
        sent += 1
    return sent


async def _send_batches(contestant: Bare, made: Iterator[Message], until: float) -> int:
    # What a hundred senders have to send at any time, with one call.
    sent = 0
    while time.perf_counter() < until:
        await contestant.publish_batch(_GROUP, list(itertools.islice(made, SENDERS)))
        sent += SENDERS
    return sent


async def receive_all(member: Member) -> Figures:
    """Receive until as many have come as were sent, or nothing comes any more."""
    figures = {"received": 0, "latest": time.perf_counter()}
    receiving = asyncio.create_task(_receive_all(member, figures))
    # Not a limit for each message: it would cost as much as the fastest take for one.
    while not (await asyncio.wait([receiving], timeout=_SILENCE_SECONDS))[0]:
        if time.perf_counter() - figures["latest"] > _SILENCE_SECONDS:
            receiving.cancel()
    if not receiving.cancelled():
        receiving.result()
    return figures


async def _receive_all(member: Member, figures: Figures) -> None:
    expected = None
    while expected is None or figures["received"] < expected:
        message = await member.receive()
        figures["latest"] = time.perf_counter()
        if is_last(message):
            expected = message["number"]
        else:
            figures["received"] += 1


def rate_of(sent: Figures, received: Figures) -> Figures:
    """The figures of a work from those of the two sides."""
    seconds = received["latest"] - sent["started"]
    return {"rate": received["received"] / seconds, "lost": sent["sent"] - received["received"]}


async def measure_in_one(crew: Crew, scale: Scale, *, size: int) -> Figures:
    """One process."""
    return await crew.play("throughput.in_one_process", size=size, seconds=scale.seconds)


async def measure_in_two(crew: Crew, scale: Scale, *, size: int) -> Figures:
    """Two processes."""
    sending: dict[str, Any] = {"size": size, "seconds": scale.seconds}
    received, sent = await crew.play_together(("throughput.receive", {}), ("throughput.send", sending))
    return rate_of(sent, received)


FIGURES: Final = {"rate": Figure("messages", "/s")}
_GOALS: Final = (Goal("rate", PUBSUB, at_least=10), Goal("rate", "bare", at_least=0.6))
_ONE_PROCESS_ONLY: Final = {"in-memory": "one process only"}

WORKS: Final = (
    *(
        Work(
            name=f"throughput-{name}-one",
            title=f"{SENDERS} senders, {title}, one process",
            contestants=EVERYBODY,
            measure=partial(measure_in_one, size=size),
            figures=FIGURES,
            goals=_GOALS,
        )
        for name, title, size in (("200", "200 B", SMALL_BYTES), ("4k", "4 kB", LARGE_BYTES))
    ),
    *(
        Work(
            name=f"throughput-{name}-two",
            title=f"{SENDERS} senders, {title}, two processes",
            contestants=except_for("in-memory"),
            measure=partial(measure_in_two, size=size),
            figures=FIGURES,
            goals=_GOALS,
            processes=2,
            left_out=_ONE_PROCESS_ONLY,
        )
        for name, title, size in (("200", "200 B", SMALL_BYTES), ("4k", "4 kB", LARGE_BYTES))
    ),
    Work(
        name="encryption",
        title=f"{SENDERS} senders, 200 B, one process, encrypted",
        contestants=(OURS, "pgchannels-sealed"),
        measure=partial(measure_in_one, size=SMALL_BYTES),
        figures=FIGURES,
        goals=(Goal("rate", OURS, at_least=0.6, of="pgchannels-sealed"),),
    ),
)
