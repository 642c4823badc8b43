"""Which channel was certainly in which group when, by all journals; the rules are those of `ledger`."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from math import inf

from pgchannels import Position
from tests.chaos.gaps import Missing
from tests.chaos.journal import GROUP, Changed, Changing, Crashed, Key, Received, Record
from tests.chaos.ledger import Account, Ledger
from tests.chaos.sends import Sends


@dataclass(slots=True)
class Change:
    """One addition to a group, or one removal; as long as it has not returned, it may take effect at any time."""

    is_addition: bool
    is_own: bool
    began: float
    ended: float = inf


class Memberships:
    """All changes of all channels."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._changes: dict[str, dict[str, list[Change]]] = defaultdict(
            lambda: defaultdict(list)
        )  # by channel and group
        self._crashes = [record for account in accounts for record in account.records if isinstance(record, Crashed)]
        for account in accounts:
            self._enter(account.records)

    def groups_of(self, channel: str) -> list[str]:
        """Those that anybody tried to add a channel to."""
        return [*self._changes[channel]]

    def due(self, channel: str, group: str, sends: Sends, records: Sequence[Record]) -> Iterator[Key]:
        """What was sent to a group while a channel, whose records these are, was a certain member of it."""
        received = [
            (sends.began_at.get(record.key, 0.0), record.at)
            for record in records
            if isinstance(record, Received) and record.target == group
        ]
        changes = self._changes[channel][group]
        certain: dict[float, float] = {}  # since when it was one, by until when
        for addition in changes:
            if addition.is_addition and addition.ended < inf:
                until = self._is_certain_until(addition, changes, received)
                certain[until] = min(addition.ended, certain.get(until, inf))
        yield from dict.fromkeys(
            key for until, after in certain.items() for key in sends.sent_within(group, after, until)
        )

    def is_stranger(self, channel: str, sends: Sends, receipt: Received) -> bool:
        """Whether a channel had certainly left a group when what it received was sent."""
        changes = self._changes[channel][receipt.target]
        additions = [change for change in changes if change.is_addition and change.began < receipt.at]
        removals = [change for change in _removals(changes) if change.ended < sends.began_at.get(receipt.key, 0)]
        return not additions or any(self._is_final(removal, additions) for removal in removals)

    def _enter(self, records: Iterable[Record]) -> None:
        begun: dict[int, Change] = {}
        for record in records:
            if isinstance(record, Changing):
                change = begun[record.number] = Change(record.is_addition, record.is_own, record.at)
                self._changes[record.channel][record.target].append(change)
            elif isinstance(record, Changed):
                begun[record.number].ended = record.at

    def _is_certain_until(
        self, addition: Change, changes: Sequence[Change], received: Sequence[tuple[float, float]]
    ) -> float:
        """Until when an addition is in effect: the first removal, or the first crash, unless it outlasts that.

        `received` has, for each message of the group that came, when it was sent and when it came.
        """
        removal = min((removal.began for removal in _removals(changes) if removal.ended > addition.began), default=inf)
        crash = min((crash.began for crash in self._crashes if addition.began < crash.at), default=inf)
        if addition.is_own and addition.ended < crash:
            return removal
        shows = min((came for sent, came in received if sent > addition.ended), default=inf)
        return removal if shows < crash else min(removal, crash)

    def _is_final(self, removal: Change, additions: Iterable[Change]) -> bool:
        moments = chain((addition.ended for addition in additions), (crash.at for crash in self._crashes))
        return not any(moment > removal.began for moment in moments)


def _removals(changes: Iterable[Change]) -> Iterator[Change]:
    return (change for change in changes if not change.is_addition)


class Member:
    """What one channel got of its groups, by the places in its records; what it got of itself is a stream's."""

    def __init__(self, sends: Sends, memberships: Memberships, channel: str, records: Sequence[Record]) -> None:
        self._sends = sends
        self._memberships = memberships
        self._channel = channel
        self._records = records
        self._places = {record.key: place for place, record in enumerate(records) if isinstance(record, Received)}

    def require_nothing_of_others_and_order(self, ledger: Ledger, receiver: str) -> None:
        """Enter what came of groups that the channel was not in, and what came behind something later of its sender."""
        last: dict[tuple[str, str], Position] = {}  # by sender and server
        for key, place in self._places.items():
            receipt = self._records[place]
            assert isinstance(receipt, Received)
            if key.target.startswith(GROUP) and self._memberships.is_stranger(self._channel, self._sends, receipt):
                ledger.unaccounted.append(f"{key} came to {receiver}, which had left the group")
            if (position := self._sends.position_of(receipt)) is not None:
                if position < (before := last.get((key.sender, position.server), position)):
                    ledger.out_of_order.append(f"{key} at {position} came to {receiver} behind {before} of its sender")
                last[key.sender, position.server] = max(position, before)

    def missing(self, *, is_finished: bool) -> Iterator[Missing]:
        """What was due of the groups and did not come; to whoever was ended only what should have come before."""
        for group in self._memberships.groups_of(self._channel):
            for key in self._memberships.due(self._channel, group, self._sends, self._records):
                if key not in self._places:
                    missing = self._missing(key)
                    if is_finished or missing.before < inf:
                        yield missing

    def _missing(self, key: Key) -> Missing:
        """A message between all that must come before it and behind it: what is in its group, or by its sender."""
        position = self._sends.positions[key]
        near = [self._order[key.target, position.server], self._order[key.sender, position.server]]
        behind = max(order.last_place_before(position) for order in near)
        return Missing(key, position, behind, min(order.first_place_behind(position) for order in near))

    @cached_property
    def _order(self) -> "defaultdict[tuple[str, str], _Order]":
        """What came, by group and by sender, and by server."""
        came: dict[tuple[str, str], list[tuple[Position, int]]] = defaultdict(list)
        for key, place in self._places.items():
            if (position := self._sends.positions.get(key)) is not None:
                came[key.target, position.server].append((position, place))
                came[key.sender, position.server].append((position, place))
        return defaultdict(_Order, {name: _Order(sorted(places)) for name, places in came.items()})


class _Order:
    """The places of messages in the order of their positions."""

    def __init__(self, places: Sequence[tuple[Position, int]] = ()) -> None:
        self._positions = [position for position, _ in places]
        self._last = [-1, *accumulate((place for _, place in places), max)]
        self._first = [*[*accumulate((place for _, place in reversed(places)), min)][::-1], inf]

    def last_place_before(self, position: Position) -> int:
        """The last place of a message with a lesser position; -1 if there is none."""
        return self._last[bisect_left(self._positions, position)]

    def first_place_behind(self, position: Position) -> float:
        """The first place of a message with a greater position."""
        return self._first[bisect_right(self._positions, position)]
