"""A process that claims jobs, and does them or fails: `python -m tests.chaos.claimer PART`."""

import asyncio
from contextlib import suppress
from typing import Any, Final

from pgchannels import Gap
from pgchannels.work import Work
from tests.chaos.journal import CLAIMED, TOPIC, Began, GapTold, Took, Worked
from tests.chaos.process import Player, play

_ATTEMPTS: Final = 1_000_000  # nothing becomes a dead letter
_PATIENT_TASKS: Final = 2
_LONGEST_PATIENCE_SECONDS: Final = 0.5
_HIDDEN_SECONDS: Final = 1.0
_JOB_SECONDS: Final = 0.03  # on average
_OVERLONG: Final = 0.03  # which part of the hidden jobs takes longer than they are hidden
_FAILS_FIRST: Final = 8  # every so many jobs of a sender fail when they are tried for the first time


class _JobFails(Exception):
    """Ends a job without success."""


async def claim(player: Player) -> None:
    """Claim by several calls at a time until told to finish; some are given up and made again."""
    target = CLAIMED + player.part.claimed
    # Any message tells the epoch in which this worker began.
    player.journal.write(Began(target, target, await player.sender.send_surely(TOPIC + player.part.topics[0])))
    claimer = _Claimer(player, target)
    async with asyncio.TaskGroup() as working:
        tasks = [working.create_task(claimer.work()) for _ in range(_PATIENT_TASKS)]
        tasks.append(working.create_task(claimer.work(longest_patience=_LONGEST_PATIENCE_SECONDS)))
        tasks.append(working.create_task(claimer.work(hidden_seconds=_HIDDEN_SECONDS)))
        player.report("ready")
        await player.finished.wait()
        for task in tasks:
            task.cancel()


class _Claimer:
    """All tasks of one process."""

    def __init__(self, player: Player, target: str) -> None:
        self._player = player
        self._target = target

    async def work(self, *, longest_patience: float | None = None, hidden_seconds: float | None = None) -> None:
        """Do one job after another, forever."""
        while True:
            patience = None if longest_patience is None else self._player.random.uniform(0, longest_patience)
            with suppress(_JobFails, TimeoutError):
                await self._work_once(patience, hidden_seconds)

    async def _work_once(self, patience: float | None, hidden_seconds: float | None) -> None:
        asked = self._player.journal.now()
        async with (
            asyncio.timeout(patience) as limit,
            self._player.layer.claim(
                self._player.part.claimed, attempts=_ATTEMPTS, visible_after=hidden_seconds, on_gap=self._tell
            ) as work,
        ):
            limit.reschedule(None)
            await self._do(work, asked, hidden_seconds)

    async def _do(self, work: Work, asked: float, hidden_seconds: float | None) -> None:
        payload: Any = work.payload
        job = self._target, payload["sender"], payload["number"], work.attempts
        self._player.journal.write(Took(*job, work.position, asked, hidden_seconds))
        try:
            await asyncio.sleep(self._duration(hidden_seconds))
            if work.attempts == 1 and payload["number"] % _FAILS_FIRST == 0:
                raise _JobFails
        except BaseException:
            self._player.journal.write(Worked(*job, is_done=False))
            raise
        self._player.journal.write(Worked(*job, is_done=True))

    def _duration(self, hidden_seconds: float | None) -> float:
        random = self._player.random
        is_overlong = hidden_seconds is not None and random.random() < _OVERLONG
        return random.expovariate(1 / _JOB_SECONDS) + (1.5 * _HIDDEN_SECONDS if is_overlong else 0)

    def _tell(self, gap: Gap) -> None:
        self._player.journal.write(GapTold(self._target, gap.reason, gap.count))


if __name__ == "__main__":
    play(claim)
