"""Reads the log for those who ask for what was published before."""

from collections.abc import Sequence

from pgchannels.database.connections import Connections
from pgchannels.database.statements.reading import extent, latest_messages, messages_after
from pgchannels.database.tables import Schema
from pgchannels.names import topic_address
from pgchannels.receiving.arrival import Arrival


class Log:
    """The messages to topics of one prefix."""

    def __init__(self, connections: Connections, schema: Schema, *, prefix: str) -> None:
        self._connections = connections
        self._schema = schema
        self._prefix = prefix

    async def history(self, topic: str, *, after: int | None, limit: int) -> list[Arrival]:
        """The last messages of a topic, or the first ones after a position; oldest first, without expired ones."""
        if after is None:
            statement = latest_messages(self._schema, topic_address(self._prefix, topic), limit=limit)
            return [Arrival.from_row(row) for row in await self._connections.run(statement)]
        arrivals: list[Arrival] = []
        while len(arrivals) < limit and (page := await self.page([topic], after=after, up_to=None, limit=limit)):
            arrivals += [arrival for arrival in page if arrival.envelope is not None]
            after = page[-1].id
        return arrivals[:limit]

    async def page(self, topics: Sequence[str], *, after: int, up_to: int | None, limit: int) -> list[Arrival]:
        """The messages of topics after a position, none at the end; expired ones have no envelope."""
        positions = {topic_address(self._prefix, topic): after for topic in topics}
        rows = await self._connections.run(messages_after(self._schema, positions, up_to=up_to, limit=limit))
        return [Arrival.from_row(row) for row in rows]

    async def extent(self) -> tuple[int, int, int]:
        """Where this log began, up to which id messages may have left it, and the greatest id so far."""
        [seen] = await self._connections.run(extent(self._schema))
        return seen.began_at, seen.gone_until, seen.last_id
