"""Sending to and receiving from a work queue that is empty, and one in which a million messages wait."""

import asyncio
import time
from typing import Any, Final

import asyncpg
import msgpack

from benchmarks.actor import Stage
from benchmarks.contestants.contestant import Contestant
from benchmarks.crew import Crew, Figures
from benchmarks.works.messages import SMALL_BYTES, messages
from benchmarks.works.work import Figure, Goal, Scale, Work

_QUEUE: Final = "backlog"
_BATCH: Final = 512
_SENDERS: Final = 20
_RECEIVERS: Final = 4
_MESSAGES: Final = 2_000
_EXPIRY_SECONDS: Final = 3_600
_WAITING: Final = "SELECT count(*) FROM pgchannels.message WHERE address = $1"
_DELIVER: Final = (
    "SELECT first_id FROM pgchannels.deliver($1, extract(epoch FROM now()) + 10, $2, $3, $4, $5, NULL, $6)"
)


async def send_and_receive(stage: Stage, *, waiting: int) -> Figures:
    """Rates on a queue in which few messages wait, then on one with many."""
    contestant = stage.contestant
    await contestant.open()
    await _send_some(contestant, "empty")
    await _receive_some(contestant, "empty")
    few = await _rates(contestant, "empty")
    await _fill(contestant, waiting)
    many = await _rates(contestant, _QUEUE)
    return {
        **{f"{what} few": rate for what, rate in few.items()},
        **{f"{what} many": rate for what, rate in many.items()},
    }


async def _rates(contestant: Contestant, queue: str) -> dict[str, float]:
    return {"send": await _send_some(contestant, queue), "receive": await _receive_some(contestant, queue)}


async def _send_some(contestant: Contestant, queue: str) -> float:
    made = messages(SMALL_BYTES)

    async def send() -> None:
        for _ in range(_MESSAGES // _SENDERS):
            await contestant.send(queue, next(made))

    return await _rate([send() for _ in range(_SENDERS)])


async def _receive_some(contestant: Contestant, queue: str) -> float:
    async def receive() -> None:
        for _ in range(_MESSAGES // _RECEIVERS):
            await contestant.receive(queue)

    return await _rate([receive() for _ in range(_RECEIVERS)])


async def _rate(workers: list[Any]) -> float:
    started = time.perf_counter()
    await asyncio.gather(*workers)
    return _MESSAGES / (time.perf_counter() - started)


async def _fill(contestant: Contestant, count: int) -> None:
    """Fill the queue up by SQL: what is measured is not how they came."""
    connection = await asyncpg.connect(contestant.addresses.postgres)
    address = f"queue:asgi:{_QUEUE}"
    await connection.execute("UPDATE pgchannels.log SET retention = make_interval(secs => $1)", _EXPIRY_SECONDS)
    count -= await connection.fetchval(_WAITING, address)
    # As pgchannels packs them: a byte that says how, then msgpack.
    envelope = b"\x01" + msgpack.packb(next(messages(SMALL_BYTES)))
    capacity = 2**31 - 1
    for number in range(count // _BATCH):
        await connection.fetchval(
            _DELIVER,
            number,
            [address] * _BATCH,
            [None] * _BATCH,
            [envelope] * _BATCH,
            [capacity] * _BATCH,
            _EXPIRY_SECONDS,
        )
    await connection.execute("CHECKPOINT")  # the works before this one have it, too
    await connection.close()


async def _measure(crew: Crew, scale: Scale) -> Figures:
    return await crew.play("backlog.send_and_receive", waiting=scale.backlog)


WORKS: Final = (
    Work(
        name="backlog",
        title="work queue, empty and with 1,000,000 messages waiting",
        contestants=("pgchannels-api",),
        measure=_measure,
        figures={
            "send few": Figure("send, empty", "/s"),
            "send many": Figure("send, full", "/s"),
            "receive few": Figure("receive, empty", "/s"),
            "receive many": Figure("receive, full", "/s"),
        },
        goals=tuple(
            Goal(f"{what} many", None, at_least=1 / 1.3, against_figure=f"{what} few", of="pgchannels-api")
            for what in ("send", "receive")
        ),
        rounds=3,
        limit_seconds=180,
    ),
)
