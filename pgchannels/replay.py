"""What a subscriber missed, read from the log."""

from collections.abc import Sequence
from typing import Final

from pgchannels.database.failures import is_database_failure
from pgchannels.delivery.mailbox import Item
from pgchannels.delivery.retry import Backoff
from pgchannels.messages import Gap, GapReason
from pgchannels.node import Node

_PAGE_MESSAGES: Final = 500


class Replay:
    """The messages of some topics between two ids, in order, and gaps for what the log has no more, or may not have."""

    def __init__(self, node: Node, topics: Sequence[str], *, after: int, until: int) -> None:
        self._node = node
        self._topics = topics
        # Up to where it has read; from 0 on when the position was of another log, with greater ones.
        self.after: int = after
        self._complete_until = after
        self._until = until

    async def next_page(self) -> list[Item]:
        """The next messages and gaps; none at the end. Expired messages are gaps. Waits while the database is away."""
        backoff = Backoff()
        while True:
            try:
                return await self._read_page()
            except Exception as error:
                if not is_database_failure(error):
                    raise
                await backoff.pause_after(error, "could not read what a subscription missed")

    async def _read_page(self) -> list[Item]:
        page = await self._node.log.page(self._topics, after=self.after, up_to=self._until, limit=_PAGE_MESSAGES)
        gaps = await self._gaps()  # after reading: what left the log meanwhile is noticed
        if page:
            self.after = page[-1].id
            self._complete_until = max(self._complete_until, self.after)
        return [*gaps, *(Gap(GapReason.EXPIRED, 1) if arrival.envelope is None else arrival for arrival in page)]

    async def _gaps(self) -> list[Item]:
        began_at, gone_until, last_id = await self._node.log.extent()
        is_elsewhere = self._complete_until > last_id  # the position of another log: all that there is comes after it
        if is_elsewhere:
            self.after = 0
        elif self._complete_until >= gone_until:
            return []
        is_of_this_log = began_at <= self._complete_until and not is_elsewhere
        self._complete_until = gone_until
        return [Gap(GapReason.EXPIRED if is_of_this_log else GapReason.CRASH, None)]
