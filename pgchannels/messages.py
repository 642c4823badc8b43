"""What users hold: positions and messages."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

# The upper bits of a message's id count the times that a crash of the server emptied the log.
_OFFSET_BITS = 49


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a message stands in its topic: later messages of a topic have greater positions.

    `str(position)` is short printable text; `Position.parse` reads it back. Offsets grow by more than one.
    """

    epoch: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str(position)` wrote.

        :raises ValueError: the text is not a position.
        """
        epoch, _, offset = text.partition("-")
        if not (epoch.isascii() and epoch.isdigit() and offset.isascii() and offset.isdigit()):
            raise ValueError(f"{text!r} is not a position; a position reads like '1-512'")
        return cls(int(epoch), int(offset))

    @classmethod
    def from_id(cls, message_id: int) -> Self:
        """The position of the message with this id in the log."""
        return cls(message_id >> _OFFSET_BITS, message_id & ((1 << _OFFSET_BITS) - 1))

    def to_id(self) -> int:
        """The id in the log that stands for this position."""
        return (self.epoch << _OFFSET_BITS) | self.offset

    def __str__(self) -> str:
        return f"{self.epoch}-{self.offset}"


@dataclass(frozen=True, slots=True)
class Message:
    """What a subscriber receives; `published_at` is the database's clock, in UTC."""

    topic: str
    payload: Any
    position: Position
    published_at: datetime
