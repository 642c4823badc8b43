"""A process that claims jobs, and does them or fails: `python -m tests.chaos.claimer PART`."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pgchannels import Gap
from pgchannels.names import DEAD_LETTERS
from pgchannels.work import Work
from tests.chaos.journal import CLAIMED, GapTold, Took, Worked
from tests.chaos.process import Player, play
from tests.chaos.worker import begin_to_consume

_ATTEMPTS: Final = 4
_LONGEST_PATIENCE_SECONDS: Final = 0.5
_HIDDEN_SECONDS: Final = 1.0
_JOB_SECONDS: Final = 0.03  # on average
_OVERLONG: Final = 0.03  # which part of the hidden jobs takes longer than they are hidden
_FAILS_FIRST: Final = 8  # every so many jobs of a sender fail when they are tried for the first time
_FAILS_UNTIL_DEAD: Final = 24  # and every so many until they are dead letters


@dataclass(frozen=True, slots=True)
class _Way:
    """How one task claims."""

    longest_patience: float | None = None
    hidden_seconds: float | None = None
    is_of_dead: bool = False


_WAYS: Final = (
    *(_Way(), _Way(), _Way(longest_patience=_LONGEST_PATIENCE_SECONDS)),
    *(_Way(hidden_seconds=_HIDDEN_SECONDS), _Way(is_of_dead=True)),
)


class _JobFails(Exception):
    """Ends a job without success."""


async def claim(player: Player) -> None:
    """Claim by several calls at a time until told to finish; some are given up and made again."""
    target = CLAIMED + player.part.claimed
    await begin_to_consume(player, target)
    claimer = _Claimer(player, target)
    async with asyncio.TaskGroup() as working:
        tasks = [working.create_task(claimer.work(way)) for way in _WAYS]
        player.report("ready")
        await player.finished.wait()
        for task in tasks:
            task.cancel()


class _Claimer:
    """All tasks of one process."""

    def __init__(self, player: Player, target: str) -> None:
        self._player = player
        self._target = target

    async def work(self, way: _Way) -> None:
        """Do one job after another, forever."""
        while True:
            with suppress(_JobFails, TimeoutError):
                await self._work_once(way)

    async def _work_once(self, way: _Way) -> None:
        asked, queue = self._player.journal.now(), self._player.part.claimed + (DEAD_LETTERS if way.is_of_dead else "")
        patience = None if way.longest_patience is None else self._player.random.uniform(0, way.longest_patience)
        options: Any = {"attempts": _ATTEMPTS, "visible_after": way.hidden_seconds, "on_gap": self._tell}
        async with asyncio.timeout(patience) as limit, self._player.layer.claim(queue, **options) as work:
            limit.reschedule(None)
            await self._do(work, asked, way)

    async def _do(self, work: Work, asked: float, way: _Way) -> None:
        payload: Any = work.payload
        job = self._target, payload["sender"], payload["number"], work.attempts
        self._player.journal.write(Took(*job, work.position, asked, way.hidden_seconds, way.is_of_dead))
        try:
            await asyncio.sleep(self._duration(way))
            if _fails(payload["number"], work.attempts, way):
                raise _JobFails
        except BaseException:
            self._player.journal.write(Worked(*job, is_done=False))
            raise
        self._player.journal.write(Worked(*job, is_done=True))

    def _duration(self, way: _Way) -> float:
        random = self._player.random
        is_overlong = way.hidden_seconds is not None and random.random() < _OVERLONG
        return random.expovariate(1 / _JOB_SECONDS) + (1.5 * _HIDDEN_SECONDS if is_overlong else 0)

    def _tell(self, gap: Gap) -> None:
        self._player.journal.write(GapTold(self._target, gap.reason, gap.count))


def _fails(number: int, attempts: int, way: _Way) -> bool:
    if way.is_of_dead:
        return False
    return number % _FAILS_UNTIL_DEAD == 0 or (number % _FAILS_FIRST == 0 and attempts == 1)


if __name__ == "__main__":
    play(claim)
