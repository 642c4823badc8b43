"""A message as it arrives at a node, by notification or read from the log."""

from binascii import a2b_base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from sqlalchemy import Row

from pgchannels.names import is_queue_address, is_topic_address

_UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_IDS: Final = range(1, 2**63)
_MICROSECONDS: Final = range((datetime.max - datetime(1970, 1, 1)) // timedelta(microseconds=1))


@dataclass(slots=True)
class Arrival:
    """One message for any number of receivers on this node.

    `envelope` is None until the row has been read, when the payload was too large for the notification.
    """

    id: int
    published_microseconds: int  # since 1970, by the database's clock
    address: str
    channel: str | None
    envelope: bytes | None
    plain: bytes | None = None  # the envelope without its seal, kept by the first receiver for the others

    @classmethod
    def from_notification(cls, text: str) -> Self:
        """Read what `notify_nodes.sql` wrote behind the 'm'.

        :raises ValueError: it is something else.
        """
        message_id, microseconds, address, channel, payload = text.split(" ")
        envelope = a2b_base64(payload) or None
        return cls(
            _number_in(_IDS, message_id), _number_in(_MICROSECONDS, microseconds), address, channel or None, envelope
        )

    @classmethod
    def from_row(cls, row: Row[Any]) -> Self:
        """Take a row that one of the reading statements returned."""
        return cls(row.id, row.published_microseconds, row.address, row.channel, row.payload)

    @property
    def published_at(self) -> datetime:
        """When the database took the message, in UTC."""
        return _UNIX_EPOCH + timedelta(microseconds=self.published_microseconds)

    @property
    def bound_to(self) -> str:
        """What a sealed envelope must have been sealed for. A queue's copy keeps the seal of its topic."""
        if self.channel is None:
            return self.address
        # Of a topic and nothing else: a message to one queue must not open in another that names it.
        is_copy = is_queue_address(self.address) and is_topic_address(self.channel)
        return self.channel if is_copy else f"{self.address} {self.channel}"


def _number_in(numbers: range, text: str) -> int:
    # The database takes no greater id: with one as a position, nothing could be read from the log any more.
    if (number := int(text)) not in numbers:
        raise ValueError("the number is out of range")
    return number
