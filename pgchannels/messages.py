"""What users get: positions, messages and gaps."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Self, TypeAlias

Header: TypeAlias = str | bytes | int

NO_HEADERS: Final[Mapping[str, Header]] = MappingProxyType({})

# The upper bits of a message's id count how often a server crash has emptied the log, up to `_LAST_EPOCH`.
_OFFSET_BITS = 53
_LAST_EPOCH = 1023
_POSITION = re.compile(r"(?P<epoch>[0-9]{1,4})-(?P<offset>[0-9]{1,16})(?:@(?P<server>.+))?")
_SERVER = re.compile(r"[A-Za-z0-9\-_.:/\[\]]{1,100}")  # no '@', ',' or '=', which separate parts of a text


@dataclass(frozen=True, slots=True, order=True)  # not a tuple, though faster: JSON would write it as a list
class Position:
    """Where a message stands in its topic: later messages of a topic have greater positions.

    `str(position)` is short printable text; `Position.parse` reads it back. Offsets are not consecutive.

    A layer with several servers names the `server` in each position: `1-512@a`. Positions on different servers cannot
    be compared.
    """

    epoch: int
    offset: int
    server: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str(position)` wrote.

        :raises ValueError: the text is not a position, or one that no message can have.
        """
        read = _POSITION.fullmatch(text) if isinstance(text, str) else None
        position = cls(int(read["epoch"]), int(read["offset"]), read["server"] or "") if read else None
        if position is None or not position.is_possible:
            shown = str.__repr__(text) if isinstance(text, str) else f"what is no text but {type(text).__name__}"
            raise ValueError(f"{shown:.80} is not a position; a position reads like '1-512'")
        return position

    @classmethod
    def from_id(cls, message_id: int, server: str = "") -> Self:
        """Return the position of the message with this id in the log."""
        return cls(message_id >> _OFFSET_BITS, message_id & ((1 << _OFFSET_BITS) - 1), server)

    @property
    def is_possible(self) -> bool:
        """Whether a message can have this position."""
        numbers = (self.epoch, self.offset)
        return (
            all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
            and 0 <= self.epoch <= _LAST_EPOCH
            and 0 <= self.offset < 1 << _OFFSET_BITS
            and (self.server == "" or is_server_name(self.server))
        )

    def to_id(self) -> int:
        """Return the id in the log that this position stands for."""
        return (self.epoch << _OFFSET_BITS) | self.offset

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}@{self.server}" if self.server else f"{self.epoch}-{self.offset}"


def is_server_name(name: object) -> bool:
    """Whether a text can be the name of a server."""
    return isinstance(name, str) and _SERVER.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Positions:
    """Where a subscription stands in each of its topics: as one text, like a `Position`.

    One position would not do for several topics: a message of one topic may be committed after a message of another
    topic with a greater position. `least` counts for all topics that are not among those `ahead` of it. So the text of
    a `Position` means that position in every topic.

    With several servers, each topic is named with its server: `0-0@a,room@a=1-512,news@b=1-640`.
    """

    least: Position
    ahead: Mapping[str, Position] = field(default_factory=dict)

    @classmethod
    def by_topic(cls, positions: Mapping[str, Position]) -> Self:
        """Return the shortest form of a position for each topic."""
        least = min(positions.values())
        return cls(least, {topic: position for topic, position in positions.items() if position != least})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str(positions)` or `str(position)` wrote.

        :raises ValueError: the text is neither.
        """
        least, *ahead = text.split(",") if isinstance(text, str) else [text]
        pairs = [item.rpartition("=") for item in ahead]
        return cls(Position.parse(least), {topic: Position.parse(position) for topic, _, position in pairs})

    @property
    def is_possible(self) -> bool:
        """Whether messages can have all of these positions."""
        return all(position.is_possible for position in (self.least, *self.ahead.values()))

    def of(self, topic: str) -> Position:
        """Return the position in a topic."""
        return self.ahead.get(topic, self.least)

    def __str__(self) -> str:
        return ",".join([str(self.least), *(f"{topic}={position}" for topic, position in self.ahead.items())])


@dataclass(slots=True, repr=False)
class Message:
    """What a subscriber receives: `topic`, `payload`, `headers`, `position` and `published_at`."""

    topic: str
    payload: Any
    _id: int
    _published_microseconds: int
    headers: Mapping[str, Header] = field(default_factory=lambda: NO_HEADERS)
    _server: str = ""

    # Computed on demand: most receivers look only at the payload.

    @property
    def position(self) -> Position:
        """Where the message stands in its topic."""
        return Position.from_id(self._id, self._server)

    @property
    def published_at(self) -> datetime:
        """When the database took the message, by the clock of the database, in UTC."""
        return time_of(self._published_microseconds)

    def __repr__(self) -> str:
        return f"Message({self.topic!r}, {self.payload!r}, position={self.position}, published_at={self.published_at})"


def time_of(microseconds_since_1970: int) -> datetime:
    """Return a moment in UTC."""
    seconds, microseconds = divmod(microseconds_since_1970, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


class GapReason(StrEnum):
    """Why messages were lost for good."""

    CAPACITY = "capacity"  # they arrived while the receiver's mailbox was full
    EXPIRED = "expired"  # they expired, or had left the log, before they could be read
    CRASH = "crash"  # a crash or a failover of the server emptied the log
    UNREADABLE = "unreadable"  # they are damaged, or this process lacks their key or their format
    MOVED = "moved"  # they may be on another server, where the topic was before


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch in which a receiver lost messages; a `count` of None means an unknown number, perhaps none."""

    reason: GapReason
    count: int | None

    def __str__(self) -> str:
        match self.count:
            case None:
                lost = "messages may have been lost"
            case 1:
                lost = "1 message was lost"
            case count:
                lost = f"{count:,} messages were lost"
        return f"{lost}: {_EXPLANATIONS[self.reason]}"


_EXPLANATIONS = {
    GapReason.CAPACITY: "too many others waited for the receiver",
    GapReason.EXPIRED: "the receiver did not get them before they expired",
    GapReason.CRASH: "the database server crashed or was replaced, which empties the log",
    GapReason.UNREADABLE: (
        "it could not be read: damaged, sealed with an unknown key, or in a format that is not registered here"
    ),
    GapReason.MOVED: "`since` is a position on another server, where the topic may have been",
}
