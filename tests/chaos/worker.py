"""A process that consumes the work queue: `python -m tests.chaos.worker PART`."""

import asyncio
from typing import Any, Final

from pgchannels import Gap
from tests.chaos.journal import QUEUE, TOPIC, Began, GapTold, Received
from tests.chaos.ledger import LAST
from tests.chaos.process import Player, play

RECEIVERS: Final = 3  # calls of `receive` at a time
_LONGEST_PATIENCE_SECONDS: Final = 0.2


async def work(player: Player) -> None:
    """Receive by several calls at a time until each got a last message; some are given up and made again."""
    target = QUEUE + player.part.queue
    await begin_to_consume(player, target)
    player.report("ready")
    async with asyncio.TaskGroup() as working:
        receiving = [
            working.create_task(_receive_until_last(player, target, is_patient=number > 0))
            for number in range(RECEIVERS)
        ]
        reporting = working.create_task(_report_when_done(player, receiving))
        await player.finished.wait()
        for task in (*receiving, reporting):
            task.cancel()


async def begin_to_consume(player: Player, target: str) -> None:
    """Write down the epochs in which a consumer begins: messages on every server tell them."""
    for topic in player.part.topics:
        player.journal.write(Began(target, target, await player.sender.send_surely(TOPIC + topic)))


async def _report_when_done(player: Player, receiving: "list[asyncio.Task[None]]") -> None:
    await asyncio.wait(receiving)
    player.report("caught up")


async def _receive_until_last(player: Player, target: str, *, is_patient: bool) -> None:
    sender = ""
    while sender != LAST:
        patience = None if is_patient else player.random.uniform(0, _LONGEST_PATIENCE_SECONDS)
        try:
            async with asyncio.timeout(patience):
                sender = await _receive(player, target)
        except TimeoutError:
            continue


async def _receive(player: Player, target: str) -> str:
    def tell(gap: Gap) -> None:
        player.journal.write(GapTold(target, gap.reason, gap.count))

    payload: Any = await player.layer.receive(player.part.queue, on_gap=tell)
    player.journal.write(Received(target, target, payload["sender"], payload["number"]))
    return str(payload["sender"])


if __name__ == "__main__":
    play(work)
