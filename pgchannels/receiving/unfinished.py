"""Gives back what nobody works on any more: a node is gone, or the work takes longer than it may."""

import asyncio
from collections.abc import Iterable

from pgchannels.database.chore import Chore
from pgchannels.database.connections import Connections
from pgchannels.database.statements.queues import give_back_abandoned
from pgchannels.receiving.taking import Taker
from pgchannels.receiving.work import Works


class Unfinished:
    """Looks through the work of all nodes: with each heartbeat, and when some of it is due.

    :param claiming: held while a call takes messages: they are under work before this node knows of them.
    """

    def __init__(
        self, connections: Connections, works: Works, node_address: str, taker: Taker, claiming: asyncio.Lock
    ) -> None:
        self.chore: Chore = Chore(
            self._look, what_failed="could not look for abandoned work", every_seconds=self._seconds_left
        )
        self._connections = connections
        self._works = works
        self._node_address = node_address
        self._taker = taker
        self._claiming = claiming
        self._due: dict[str, float] = {}  # by queue, by the loop's clock

    def look_at(self, queues: Iterable[str]) -> None:
        """Look through the work of these queues, and of no others, as soon as possible."""
        self._due = dict.fromkeys(queues, 0.0)
        if self._due:
            self.chore.ask()

    def look_within(self, queue: str, seconds: float) -> None:
        """Look through the work of a queue after this time at the latest."""
        due = asyncio.get_running_loop().time() + seconds
        if due < self._due.get(queue, float("inf")):
            self._due[queue] = due
            self.chore.ask()

    def _seconds_left(self) -> float | None:
        return max(min(self._due.values()) - asyncio.get_running_loop().time(), 0) if self._due else None

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for queue in [queue for queue, due in self._due.items() if due <= now]:
            async with self._claiming:
                seconds = await self._give_back_abandoned(queue)
            self._due.pop(queue, None)
            if seconds is not None:
                self.look_within(queue, seconds)

    async def _give_back_abandoned(self, queue: str) -> float | None:
        is_known = all(terms.address != queue for terms in self._taker.unresolved)
        own = (self._node_address, self._works.ids(queue)) if is_known else (None, None)
        [(seconds,)] = await self._connections.fetch(give_back_abandoned, queue, *own)
        return None if seconds is None else float(seconds)
