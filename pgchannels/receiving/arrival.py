"""A message as it arrives at a node, by notification or read from the log."""

from binascii import a2b_base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

import asyncpg

from pgchannels.names import DEAD_LETTERS, is_queue_address, is_topic_address, topic_of_address

GREATEST_ID: Final = 2**63 - 1  # the database's limit: with a position beyond it, every later read would fail
_LATEST_MICROSECONDS: Final = (datetime.max - datetime(1970, 1, 1)) // timedelta(microseconds=1)


@dataclass(slots=True)
class Arrival:
    """One message for any number of receivers on this node.

    If the payload was too large for the notification, `envelope` is None until the row has been read. It stays None if
    the message had expired, or its row was gone.
    """

    id: int
    published_microseconds: int  # since 1970, by the database's clock
    address: str
    channel: str | None
    envelope: bytes | None
    expires_microseconds: int | None = None  # as published; None: not looked up
    is_read: bool = False  # from the log: a missing envelope is gone
    plain: bytes | None = None  # the unsealed envelope, kept by the first receiver for the others
    left_out: str | None = None  # the channel that does not get it, of a message to a topic
    server: str = ""  # which brought it to a subscription, if there are several

    @classmethod
    def from_notification(cls, text: str) -> list[Self]:
        """Parse what `deliver.sql` writes after the 'm': messages to one address.

        :raises ValueError: the text is something else.
        """
        microseconds_text, address, *messages = text.split(" ")
        published_text, _, lasts_text = microseconds_text.partition("/")
        microseconds = int(published_text)
        expires = microseconds + int(lasts_text) if lasts_text else None
        if not messages or not 0 <= microseconds < _LATEST_MICROSECONDS:
            raise ValueError("no messages, or a number is out of range")
        fields = iter(messages)
        arrivals = [
            cls(_valid_id(message_id), microseconds, address, channel or None, a2b_base64(payload) or None, expires)
            for message_id, channel, payload in zip(fields, fields, fields, strict=True)
        ]
        return arrivals if not is_topic_address(address) else [arrival._of_topic() for arrival in arrivals]

    @classmethod
    def mark(cls, text: str) -> Self:
        """Parse a notification of `host.sql`: a position, in order with messages; to no address.

        :raises ValueError: the text is something else.
        """
        return cls(_valid_id(text), 0, "", None, b"")

    @classmethod
    def from_row(cls, row: "Sequence[Any] | asyncpg.Record", *, expires_microseconds: int | None = None) -> Self:
        """Build an arrival from a row of a statement that reads messages; its first columns are the fields in order."""
        return cls(row[0], row[1], row[2], row[3], row[4], expires_microseconds, is_read=True)._of_topic()

    @property
    def must_be_read(self) -> bool:
        """Whether it was announced by its id alone."""
        return self.envelope is None and not self.is_read

    @property
    def bound_to(self) -> str:
        """What a sealed envelope must be bound to. A queue's copy keeps the seal of its topic."""
        if self.channel is None:
            return self.address if self.left_out is None else f"{self.address} {self.left_out}"
        return self.channel if self.is_of_topic or self.is_dead_letter else f"{self.address} {self.channel}"

    @property
    def is_of_topic(self) -> bool:
        """Whether it was sent to a topic, not to a channel; a queue's copy names its topic."""
        if self.channel is None:
            return is_topic_address(self.address)
        # Only a topic counts: a message to one queue must not open in another that names it as its channel.
        return is_queue_address(self.address) and is_topic_address(self.channel)

    @property
    def is_dead_letter(self) -> bool:
        """Whether it comes from the queue that its channel names, to which it was sent."""
        return is_queue_address(self.address) and self.address == f"{self.channel}{DEAD_LETTERS}"

    @property
    def topic(self) -> str:
        """The topic that it was sent to."""
        return topic_of_address((self.channel or self.address).partition(" ")[0])

    def _of_topic(self) -> Self:
        if self.channel is not None and is_topic_address(self.address):
            self.left_out, self.channel = self.channel, None
        return self


def _valid_id(text: str) -> int:
    if 0 < (message_id := int(text)) <= GREATEST_ID:
        return message_id
    raise ValueError("a number is out of range")
