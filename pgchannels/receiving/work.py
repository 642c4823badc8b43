"""The messages that this node works on, and how the work on each has ended."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pgchannels.database.connections import Connections
from pgchannels.database.statements.queues import give_back
from pgchannels.receiving.arrival import Arrival

_MOST_AT_ONCE: Final = 100

logger: logging.Logger = logging.getLogger("pgchannels")


@dataclass(slots=True)
class Taken(Arrival):
    """A message taken from a queue: its number there, and how often work on it has failed."""

    number: int = 0
    failures: int = 0


class Works:
    """Knows what is under work until the database knows how that has ended.

    A call that ends work can be repeated: what has ended already stays as it is.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._open: defaultdict[str, dict[int, Taken]] = defaultdict(dict)
        self._done: defaultdict[str, list[Taken]] = defaultdict(list)
        self._returned: defaultdict[str, list[tuple[Taken, bool]]] = defaultdict(list)

    @property
    def queues(self) -> list[str]:
        """The addresses of the queues that something is under work from."""
        return list(self._open)

    def ids(self, queue: str) -> list[int]:
        """Return the ids of the messages that are under work."""
        return list(self._open.get(queue, ()))

    def has(self, taken: Taken) -> bool:
        """Whether a message is under work."""
        return taken.id in self._open.get(taken.address, ())

    def begin(self, taken: Taken) -> None:
        """Note a message as under work."""
        self._open[taken.address][taken.id] = taken

    def finish(self, taken: Taken) -> None:
        """Note that the work is done, for the next call of `take`."""
        self._done[taken.address].append(taken)

    def return_(self, taken: Taken, *, has_failed: bool) -> None:
        """Note that a message goes back to its queue, for `give_back`."""
        self._returned[taken.address].append((taken, has_failed))

    def take_done(self, queue: str) -> list[Taken]:
        """Take messages on which the work is done, to say so in one call; `acknowledged` or `finish` must follow."""
        done = self._done.pop(queue, [])
        if done[_MOST_AT_ONCE:]:
            self._done[queue] = done[_MOST_AT_ONCE:]
        return done[:_MOST_AT_ONCE]

    def are_done(self, queue: str) -> bool:
        """Whether there is something for `take_done`."""
        return queue in self._done

    def queues_with_done(self) -> list[str]:
        """Return the queues for which there is something for `take_done`."""
        return list(self._done)

    def acknowledged(self, queue: str, done: Sequence[Taken], *, late: int) -> None:
        """Note that the database knows that work is done."""
        self._forget(queue, done)
        if late:
            logger.warning(
                "%s: %d messages had been given to others, or lost with the log, before the work on them was done here."
                " They may be done twice: raise visible_after if the work takes longer",
                queue,
                late,
            )

    async def give_back(self) -> None:
        """Put messages back into their queues; what fails stays for the next call."""
        for queue in list(self._returned):
            while returned := self._returned.get(queue, [])[:_MOST_AT_ONCE]:
                taken, have_failed = zip(*returned, strict=True)
                numbers, ids = [each.number for each in taken], [each.id for each in taken]
                await self._connections.fetch(give_back, queue, numbers, ids, list(have_failed))
                del self._returned[queue][: len(returned)]
                self._forget(queue, taken)
            self._returned.pop(queue, None)

    def return_all(self) -> None:
        """Note that everything under work whose end is not known has failed: the layer closes."""
        ended = {id(taken) for done in self._done.values() for taken in done}
        ended |= {id(taken) for returned in self._returned.values() for taken, _ in returned}
        for taken in [taken for opened in self._open.values() for taken in opened.values()]:
            if id(taken) not in ended:
                self.return_(taken, has_failed=True)

    def _forget(self, queue: str, ended: Sequence[Taken]) -> None:
        opened = self._open.get(queue, {})
        for taken in ended:
            opened.pop(taken.id, None)
        if not opened:
            self._open.pop(queue, None)
