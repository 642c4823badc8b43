"""A message as it arrives at a node, by notification or read from the log."""

from binascii import a2b_base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import Row

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
        return cls(int(message_id), int(microseconds), address, channel or None, a2b_base64(payload) or None)

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
        return self.channel if self.address.startswith("queue:") else f"{self.address} {self.channel}"
