"""What receiving needs of others, who live above it or beside it."""

from typing import Protocol

import asyncpg

from pgchannels.receiving.listener import Probe


class Lease(Protocol):
    """Keeps a node alive."""

    async def beat(self, probe: Probe) -> "tuple[int, asyncpg.Record]":
        """Renew the lease by a probe of the connection that listens: the hosted version, and the log's extent."""


class Reports(Protocol):
    """What others must know of a node."""

    def note_full(self, channel: str, is_full: bool) -> None:
        """A channel became full, or is no longer."""

    def note_flushed(self, message_id: int) -> None:
        """All that came before a message is forgotten."""

    def tell_again(self) -> None:
        """The database has forgotten this node."""
