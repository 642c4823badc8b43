"""A process with channels in groups, its own and others': `python -m tests.chaos.consumer PART`."""

import asyncio
from itertools import count
from typing import Any, Final

from pgchannels import PgChannelsError
from pgchannels.django import PostgresChannelLayer
from tests.chaos.journal import CHANNEL, GROUP, MEMBER, Changed, Changing, GapTold, Received
from tests.chaos.process import Player, play, surely
from tests.chaos.subscriber import Awaited, begin_to_expect

GROUPS: Final = 60  # many: where it is unknown whether a channel was discarded, it is due nothing of the group any more
_CHANNELS: Final = 3
_TASKS: Final = 4
_PAUSE_SECONDS: Final = 0.04  # on average, between two visits of a task
_GAP_TYPE: Final = "chaos.gap"
_STAYING: Final = 0.2  # which part of the visits end without the channel being discarded
_LARGE: Final = 0.2  # which part of the visits has messages that no notification takes


async def visit(player: Player) -> None:
    """Add channels of all consumers to groups, send to both, discard them; receive until told to finish."""
    database, options = player.part.database, player.part.options
    where: dict[str, Any] = {"url": database} if isinstance(database, str) else {"urls": database}
    crowd = PostgresChannelLayer(**where, capacity=100_000, on_gap=_GAP_TYPE, **options)
    try:
        own = [await surely(crowd.new_channel) for _ in range(_CHANNELS)]
        await _Consumer(player, crowd, own).run()
    finally:
        await crowd.close()


class _Consumer:
    """All that one process does."""

    def __init__(self, player: Player, crowd: PostgresChannelLayer, own: list[str]) -> None:
        self._player = player
        self._crowd = crowd
        self._own = own
        self._awaited = Awaited(player, {(MEMBER + channel, CHANNEL + channel) for channel in own})
        self._numbers = count()

    async def run(self) -> None:
        """Receive until told to finish, and visit until there are no channels to add any more."""
        async with asyncio.TaskGroup() as tasks:
            receiving = [tasks.create_task(self._receive(channel)) for channel in self._own]
            for channel in self._own:
                await begin_to_expect(self._player, MEMBER + channel, [CHANNEL + channel])
            self._player.report("ready", " ".join(self._own))
            await self._visit_until_at_rest()
            self._player.report("at rest")
            await self._player.finished.wait()
            for task in receiving:
                task.cancel()

    async def _visit_until_at_rest(self) -> None:
        await self._player.ordered.wait()
        async with asyncio.TaskGroup() as visiting:
            for _ in range(_TASKS):
                visiting.create_task(self._visit_again_and_again())

    async def _visit_again_and_again(self) -> None:
        random = self._player.random
        while self._player.channels and not self._player.finished.is_set():
            group, channel = f"crowd-{random.randrange(GROUPS)}", random.choice(self._player.channels)
            await self._visit(group, channel, "x" * (9_000 if random.random() < _LARGE else 0))
            await asyncio.sleep(random.expovariate(1 / _PAUSE_SECONDS))

    async def _visit(self, group: str, channel: str, filler: str) -> None:
        await self._change(group, channel, is_addition=True)
        for target in (GROUP + group, CHANNEL + channel):
            await self._player.sender.send(target, filler)
        if self._player.random.random() > _STAYING:
            await self._change(group, channel, is_addition=False)

    async def _change(self, group: str, channel: str, *, is_addition: bool) -> None:
        number, is_own = next(self._numbers), channel in self._own
        verb = self._crowd.group_add if is_addition else self._crowd.group_discard
        self._player.journal.write(Changing(number, GROUP + group, channel, is_addition, is_own))
        try:
            await verb(group, channel)
        except PgChannelsError:
            return  # it may be done all the same, later, too
        self._player.journal.write(Changed(number))

    async def _receive(self, channel: str) -> None:
        receiver = MEMBER + channel
        while True:
            message = await self._crowd.receive(channel)
            if message["type"] == _GAP_TYPE:
                self._player.journal.write(GapTold(receiver, message["reason"], message["count"]))
                continue
            target, sender = message["target"], message["sender"]
            self._player.journal.write(Received(receiver, target, sender, message["number"]))
            self._awaited.note(receiver, target, sender)


if __name__ == "__main__":
    play(visit)
