"""Takes messages from work queues: each call is repeated until it is answered."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import asyncpg

from pgchannels.database.connections import Connections
from pgchannels.database.statements.queues import take
from pgchannels.receiving.work import Taken, Works

_MOST_AT_ONCE: Final = 100
_POLLS: Final = -1  # in place of a token


@dataclass(frozen=True, slots=True)
class Terms:
    """From which queue messages are taken, and how.

    Without `attempts`, a message is done once it is taken. With it, it is under work until somebody says how that has
    ended, for at most `visible_seconds`; after so many failures it is a dead letter.
    """

    address: str
    attempts: int | None = None
    visible_seconds: float | None = None

    @property
    def name(self) -> str:
        """One for all that is taken in this way."""
        return f"{self.address} {self.attempts} {self.visible_seconds}"


@dataclass(frozen=True, slots=True)
class Call:
    """A call that may have been committed; it is repeated with its number until answered.

    The log remembers the number at least until `remembered_until`, by the database's clock. A later repetition that is
    not remembered takes nothing: it would take other messages, and those of the first call would be lost unnoticed.
    """

    number: int
    most: int
    remembered_until: float
    done: Sequence[Taken] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call took, how many messages had expired before that (None: nobody knows), and whether to call again."""

    taken: Sequence[Taken] = ()
    lost: int | None = 0
    may_be_more: bool = True


class Memory(Protocol):
    """Until when calls take effect, and for how long the log remembers them."""

    retention_seconds: float

    def valid_until(self) -> float:
        """Return until when, by the database's clock, a call made now may take effect."""


@dataclass(slots=True)
class Taker:
    """Takes for one node, and says which work is done in the same call.

    `unresolved` are calls without an answer; `tokens` are those that the node has left, see `wake.sql`, 0 at first.
    """

    connections: Connections
    memory: Memory
    works: Works
    node_address: str
    is_polled: bool = False  # nobody need wake the node
    unresolved: dict[Terms, Call] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    _is_sent_to: set[str] = field(default_factory=set)  # queues whose lock was taken when a token was to be left

    async def take(self, terms: Terms, wanted: int) -> Answer:
        """Take at most so many messages, or what the unresolved call took.

        :raises CONNECTION_FAILURES: the call is unresolved; the next one repeats it.
        """
        if terms not in self.unresolved:
            self.unresolved[terms] = self._new_call(terms, wanted)
        call = self.unresolved[terms]
        rows = await self._rows(terms, call)
        del self.unresolved[terms]
        if rows is None:
            for taken in call.done:
                self.works.finish(taken)
            return Answer(lost=None)
        if call.done:
            self.works.acknowledged(terms.address, call.done, late=rows[0]["late"])
        return self._answer(terms, call, rows)

    def queues_untold(self) -> list[str]:
        """Return the queues for which an unresolved call only says which work is done."""
        return [terms.address for terms, call in self.unresolved.items() if terms.attempts is None and not call.most]

    def _new_call(self, terms: Terms, wanted: int) -> Call:
        remembered_until = self.connections.database_time() + self.memory.retention_seconds
        done = self.works.take_done(terms.address)
        return Call(secrets.randbits(63), min(wanted, _MOST_AT_ONCE), remembered_until, done)

    async def _rows(self, terms: Terms, call: Call) -> "Sequence[asyncpg.Record] | None":
        """Return the rows of the answer; None if it is too late to know."""
        valid_until = min(self.memory.valid_until(), call.remembered_until)
        done = ([taken.number for taken in call.done], [taken.id for taken in call.done]) if call.done else (None, None)
        arguments = (
            *(call.number, valid_until, terms.address, call.most),
            *(self.node_address, self._token(terms.address), terms.address in self._is_sent_to),
            *(terms.visible_seconds, terms.attempts, *done),
        )
        try:
            return await self.connections.fetch(take, *arguments)
        except asyncpg.QueryCanceledError:
            if self.connections.database_time() < call.remembered_until:
                raise
            return None

    def _token(self, address: str) -> int | None:
        return _POLLS if self.is_polled else self.tokens.get(address)

    def _answer(self, terms: Terms, call: Call, rows: "Sequence[asyncpg.Record]") -> Answer:
        first = rows[0]
        if first["token"] is not None:
            self.tokens[terms.address] = first["token"]
        elif call.most:
            self._is_sent_to.add(terms.address)
            return Answer()
        self._is_sent_to.discard(terms.address)
        taken = [_taken(row) for row in rows if row["id"] is not None]
        has_found = first["number"] is not None or first["lost"]  # perhaps only what others have got since then
        return Answer(taken, first["lost"], may_be_more=bool(call.most and has_found))


def _taken(row: Any) -> Taken:
    taken = Taken.from_row(row)
    taken.number, taken.failures = row["number"], row["attempts"] or 0
    return taken
