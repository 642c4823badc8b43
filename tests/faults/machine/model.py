"""The promises as a model: what was sent, what each receiver got, and what that leaves to be explained.

Moments are counted, not timed: each send, each beginning of a receiver and each crash takes the next number.

A send is *stored* once its position is known: by its sender, or by a receiver that got it although its sender was told
that it may have been sent. A stored message is due to every receiver that began before it was sent, or that got an
earlier one, or that asked for all since an earlier position. What is due and did not come must lie in a gap, told
between the last message before it and the first one after it: in one with a count, which covers so many messages, or
in one of a crash, which covers those of logs that were gone before the next message was sent. A count that is greater
than what is missing at its place is wrong, too.

A flush takes what was sent before it has returned: nothing of that is due any more, nor a gap for it. What is due to
members of groups is in `memberships`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from pgchannels import Gap, GapReason, Position

BEGINNING: Final = Position(0, 0)


class Fate(Enum):
    """What the sender was told."""

    UNDER_WAY = auto()
    SENT = auto()
    PERHAPS_SENT = auto()
    NOT_SENT = auto()


@dataclass(slots=True, eq=False)
class Send:
    """One message to a topic, channel or queue."""

    label: int
    sender: str
    target: str
    started: int
    is_last: bool
    behind: Position  # the greatest that anybody knew of in this target when it started
    received_before: int  # of this target
    fate: Fate = Fate.UNDER_WAY
    ended: int | None = None  # when its sender was told
    position: Position | None = None
    may_have_expired: bool = False
    may_be_flushed: bool = False

    def __str__(self) -> str:
        position = "" if self.position is None else f" at {self.position}"
        fate = self.fate.name.lower().replace("_", " ")
        return f"#{self.label} by {self.sender} to {self.target}, {fate}{position}"

    @property
    def may_be_stored(self) -> bool:
        """Whether nobody knows its position, and nobody knows that it has none."""
        return self.position is None and self.fate is not Fate.NOT_SENT

    def store_at(self, position: Position) -> None:
        """Note its position; everybody must be told the same one, behind all that was there before it."""
        assert self.fate is not Fate.NOT_SENT, f"{self} came, but was not sent by the word of its sender"
        assert self.position in {None, position}, f"{self} came at {position}"
        assert position > self.behind, f"{self} came at {position}: positions fell"
        self.position = position


@dataclass(slots=True, eq=False)
class Reception:
    """What one subscription, channel or consumer of a queue got and was told, in its order."""

    name: str
    target: str
    since: Position | None = None
    capacity: int | None = None  # of a subscription that drops messages beyond it, or fails
    began: int | None = None
    has_ended: bool = False
    events: list[Send | Gap] = field(default_factory=list)
    moments: list[int] = field(default_factory=list)  # of the events
    told_of_crash: int = -1  # when, for the last time
    is_member: bool = False  # of groups, perhaps: gets what is sent to those, too

    def note(self, event: Send | Gap, moment: int) -> None:
        """Take what was received or told."""
        self.events.append(event)
        self.moments.append(moment)
        if isinstance(event, Gap) and event.reason is GapReason.CRASH:
            self.told_of_crash = moment

    @property
    def received(self) -> list[Send]:
        """The messages alone."""
        return [event for event in self.events if isinstance(event, Send)]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps alone."""
        return [event for event in self.events if isinstance(event, Gap)]

    @property
    def last_position(self) -> Position:
        """That of the last message to its target whose position is known."""
        known = (send.position for send in self.received if send.position and send.target == self.target)
        return max(known, default=self.since or BEGINNING)


@dataclass(slots=True, eq=False)
class Flush:
    """One flush, and when it had returned."""

    began: int
    ended: int | None = None


class Model:
    """All sends of an example, and the faults that excuse something."""

    def __init__(self) -> None:
        self.sends: list[Send] = []
        self.receptions: list[Reception] = []
        self.crashes: list[int] = []
        self.expiries: list[tuple[int, str]] = []
        self.flushes: list[Flush] = []
        self.moment = 0

    def now(self) -> int:
        """The next moment."""
        self.moment += 1
        return self.moment

    def begin_send(self, sender: str, target: str, *, is_last: bool = False) -> Send:
        """Note a message that is about to be sent."""
        behind = max((send.position for send in self.to(target) if send.position), default=BEGINNING)
        received = sum(len(reception.received) for reception in self.of(target))
        send = Send(len(self.sends), sender, target, self.now(), is_last, behind, received)
        send.may_be_flushed = send.may_have_expired = any(flush.ended is None for flush in self.flushes)
        self.sends.append(send)
        return send

    def crash(self) -> None:
        """Note that the log is emptied."""
        self.crashes.append(self.now())

    def expire(self, target: str) -> None:
        """Note that what is in the log for a target has expired."""
        self.expiries.append((self.now(), target))
        for send in self.to(target):
            send.may_have_expired = True

    def begin_flush(self) -> Flush:
        """Note that everything that was sent, or will be until the flush has ended, may go."""
        flush = Flush(self.now())
        self.flushes.append(flush)
        for send in self.sends:
            send.may_be_flushed = send.may_have_expired = True
        return flush

    def to(self, target: str) -> Iterator[Send]:
        """Everything that was sent, perhaps, to a target."""
        return (send for send in self.sends if send.target == target)

    def of(self, target: str) -> list[Reception]:
        """All receptions from a target."""
        return [reception for reception in self.receptions if reception.target == target]

    def stored(self, target: str) -> list[Send]:
        """Everything whose position is known, in the order of positions."""
        return sorted((send for send in self.to(target) if send.position), key=position_of)

    def is_surely_there(self, send: Send) -> bool:
        """Whether nothing that was done can keep a message from its receivers."""
        is_crashed = any(crash > send.started for crash in self.crashes)
        return send.position is not None and not send.may_have_expired and not is_crashed

    def most_waiting_since(self, start: Send) -> int:
        """How many messages can have waited in its channel or queue at any time since a send began, itself included."""
        return sum(send.fate is not Fate.NOT_SENT for send in self.to(start.target)) - start.received_before

    def fewest_waiting(self, target: str, received: Iterable[Send]) -> int:
        """How many messages wait for a channel or a queue at least, with receivers or before them."""
        taken = set(received)
        return sum(self.is_surely_there(send) and send not in taken for send in self.to(target))

    def is_due(self, send: Send, reception: Reception) -> bool:
        """Whether a receiver must get a message, or be told that it was lost."""
        if send.position is None or reception.began is None:
            return False
        if reception.since is not None:
            return send.position > reception.since
        first = next((other.position for other in reception.received if other.position), None)
        return send.started > reception.began or (first is not None and send.position > first)

    def is_untold(self, reception: Reception) -> bool:
        """Whether a receiver that is still there should be told of a crash."""
        if not self.crashes or reception.began is None or reception.has_ended:
            return False
        return reception.began < self.crashes[-1] and reception.told_of_crash < self.crashes[-1]

    def awaited(self, reception: Reception) -> list[Send]:
        """What will come to a subscription or channel for sure, unless it drops messages."""
        last = reception.last_position
        return [
            send
            for send in self.stored(reception.target)
            if position_of(send) > last and self.is_due(send, reception) and self.is_surely_there(send)
        ]


def position_of(send: Send) -> Position:
    """The position of a message that is stored."""
    assert send.position is not None
    return send.position
