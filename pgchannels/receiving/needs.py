"""What receiving needs from parts above or beside it."""

from typing import Protocol

import asyncpg

from pgchannels.receiving.listener import Probe


class Lease(Protocol):
    """Keeps a node alive."""

    async def beat(self, probe: Probe) -> "tuple[int, asyncpg.Record]":
        """Renew the lease with a probe of the listening connection; return the hosted version and the log's extent."""


class Reports(Protocol):
    """Reports what others must know about a node."""

    def note_full(self, channel: str, is_full: bool) -> None:
        """Record that a channel became full, or no longer is."""

    def note_flushed(self, message_id: int) -> None:
        """Record that everything before a message is forgotten."""

    def tell_again(self) -> None:
        """Report everything again: the database has forgotten this node."""


class Undelivered(Protocol):
    """Delivers what committed transactions could not."""

    def deliver_soon(self) -> None:
        """Deliver, without waiting for it."""
