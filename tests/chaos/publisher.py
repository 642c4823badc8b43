"""A process that publishes and sends until it is told to finish: `python -m tests.chaos.publisher PART`."""

import asyncio
from typing import Final

from tests.chaos.journal import CHANNEL, CLAIMED, QUEUE, TOPIC
from tests.chaos.process import Player, play

_TASKS: Final = 8
_PAUSE_SECONDS: Final = 0.04  # on average, between two calls of a task
_SIZES: Final = {(10, 10): 40, (200, 200): 40, (7_000, 9_000): 15, (50_000, 50_000): 5}  # ranges and their weights
_KINDS: Final = {"topic": 60, "several topics": 3, "queue": 20, "channel": 17, "claimed": 20}


async def publish(player: Player) -> None:
    """Send messages of all sizes to topics, the queue, and the channels of the subscribers."""
    player.report("ready")
    async with asyncio.TaskGroup() as sending:
        for _ in range(_TASKS):
            sending.create_task(_send_until_finished(player))


async def _send_until_finished(player: Player) -> None:
    while not player.finished.is_set():
        await player.sender.send_all(_targets(player), _filler(player))
        await asyncio.sleep(player.random.expovariate(1 / _PAUSE_SECONDS))


def _targets(player: Player) -> list[str]:
    [kind] = player.random.choices(list(_KINDS), list(_KINDS.values()))
    match kind:
        case "several topics":
            return [TOPIC + topic for topic in player.random.choices(player.part.topics, k=10)]
        case "queue":
            return [QUEUE + player.part.queue]
        case "claimed":
            return [CLAIMED + player.part.claimed]
        case "channel" if player.channels:
            return [CHANNEL + player.random.choice(player.channels)]
        case _:
            return [TOPIC + player.random.choice(player.part.topics)]


def _filler(player: Player) -> str:
    [(least, most)] = player.random.choices(list(_SIZES), list(_SIZES.values()))
    return "x" * player.random.randint(least, most)


if __name__ == "__main__":
    play(publish)
