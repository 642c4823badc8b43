"""Which log this is, and what has left it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import asyncpg

_EPOCH: Final = 1 << 53  # in an id


@dataclass(frozen=True, slots=True)
class Extent:
    """Which stretch of a log exists; see `extent.sql`.

    A log changes its identity when its server is started, or when it is restored. `former` holds the earlier ones, each
    with its first and its last id. Ids grow from one identity to the next, and skip some in between. An identity that a
    durable log had before a crash has a second entry, with all bits inverted; see `recover_log.sql`.
    """

    identity: int
    identity_from: int
    former: Sequence[tuple[int, int, int]]
    began_at: int
    filled_until: int
    gone_until: int
    last_id: int

    @classmethod
    def from_row(cls, row: "Sequence[Any] | asyncpg.Record") -> Self:
        """Read a row that ends with the columns of `extent`."""
        identity, identity_from, former, *numbers = row[-7:]
        return cls(identity, identity_from, former, *numbers)

    def continues(self, identity: int, seen_until: int, *, heard_of: int = 0) -> bool:
        """Whether everything seen of a log, messages up to an id, is in the past of this one.

        A log may also be known to have given a later id, `heard_of`. If it was durable and the server crashed, that may
        have been for a batch that was never committed.
        """
        if identity == self.identity:
            return True
        crashed = {~former for former, _, _ in self.former}
        until = seen_until if identity in crashed else max(seen_until, heard_of)
        return any(identity == former and until <= last for former, _, last in self.former)

    def still_has(self, identity: int, position: int) -> bool:
        """Whether a crash that took messages from a former identity of this log has left those after a position."""
        return any(former == ~identity and first < position <= last for former, first, last in self.former)

    @property
    def start(self) -> int:
        """The id before everything that this log ever had; 0 if it was emptied, and may have had more."""
        return 0 if any(first < self.began_at for _, first, _ in self.former) else self.began_at

    def place_of(self, position: int) -> int:
        """Return where a reader begins in this log: at its start, if the position was given before it began.

        `position.sql` gives the beginning of an epoch if there is no log. If this one is the next, none was lost since.
        """
        return self.start if position == (self.start - _EPOCH) & -_EPOCH else position

    def leaves_out(self, position: int) -> bool:
        """Whether a position lies between two identities of this log, and so comes from another log."""
        return any(last < position < begin for _, last, begin in self._former_and_next())

    def begin_after(self, identity: int, seen_until: int) -> int:
        """Return the id after which everything is new to a reader who has seen another log up to an id."""
        if self.began_at > seen_until:
            return self.began_at
        known = (begin for former, _, begin in self._former_and_next() if former == identity)
        return next(known, self.identity_from)

    def _former_and_next(self) -> Iterator[tuple[int, int, int]]:
        begins = [*(first for _, first, _ in self.former[1:]), self.identity_from]
        return ((former, last, begin) for (former, _, last), begin in zip(self.former, begins, strict=False))
