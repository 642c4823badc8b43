"""The only reader of the log."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pgchannels.database.connections import Connections
from pgchannels.database.extent import Extent
from pgchannels.database.statements.reading import (
    PAGE_BYTES,
    PAGE_ROWS,
    extent,
    find_time,
    gone,
    messages_after,
    position,
    position_before_latest,
    rest_of_message,
)
from pgchannels.database.wording import Place
from pgchannels.messages import Position
from pgchannels.points import Moment, PointInTopic
from pgchannels.receiving.arrival import GREATEST_ID, Arrival

_LOOK_UPS_AT_ONCE: Final = 200
_SIZE: Final = 5  # columns after those of an arrival
_EXPIRES: Final = 6


@dataclass(frozen=True, slots=True)
class Page:
    """The next messages of some addresses in the order of their ids, and the state of the log at that moment.

    If `is_full`, there may be more. Each address is complete up to its `until`, within what was requested.
    """

    arrivals: Sequence[Arrival]
    is_full: bool
    until: Mapping[str, int]
    identity: int
    filled_until: int
    gone_until: int
    last_id: int


@dataclass(frozen=True, slots=True)
class PlaceInTopic:
    """Where a moment lies in a topic; see `find_time.sql`.

    A replay of what was published since then reads what comes after `begin_after`.
    """

    last_before: int
    begin_after: int


class Log:
    """Reads a bounded number of bytes per statement, so that a slow link does not count as broken."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @property
    def place(self) -> Place:
        """Which database it is in, for errors."""
        return self._connections.place

    async def extent(self) -> Extent:
        """Return the current extent of the log."""
        return Extent.from_row((await self._connections.fetch(extent))[0])

    async def page(
        self,
        positions: Mapping[str, int],
        *,
        up_to: int = GREATEST_ID,
        most_of_each: int = PAGE_ROWS,
        most: int = PAGE_ROWS,
        is_replay: bool = False,
    ) -> Page:
        """Return the messages of each address after its position; expired ones have no envelope.

        A replay brings messages for as long as the database keeps them by its setting, also past the expiry
        of their layer, but not past one of their own.
        """
        addresses, ids = list(positions), list(positions.values())
        while not (
            rows := await self._connections.fetch(messages_after, is_replay, addresses, ids, up_to, most_of_each, most)
        ):
            await self.extent()  # there is no log yet, or no longer: this begins one
        *_, identity, filled_until, gone_until, last_id = rows[0]
        rows = [row for row in rows if row[0] is not None]
        arrivals = [Arrival.from_row(row, expires_microseconds=row[_EXPIRES]) for row in rows]
        brought = sum(len(arrival.envelope or b"") for arrival in arrivals)
        is_full = len(rows) == most or brought >= PAGE_BYTES
        counts: dict[str, int] = {}
        for arrival in arrivals:
            counts[arrival.address] = counts.get(arrival.address, 0) + 1
        cut = {address for address, count in counts.items() if count == most_of_each}
        last = {arrival.address: arrival.id for arrival in arrivals if arrival.address in cut}
        end = arrivals[-1].id if is_full else up_to
        until = {address: min(last.get(address, end), end) for address in positions}
        for row, arrival in zip(rows, arrivals, strict=True):
            await self._complete(arrival, size=row[_SIZE])
        return Page(arrivals, is_full or bool(cut), until, identity, filled_until, gone_until, last_id)

    async def gone_until(self, addresses: Collection[str]) -> dict[str, int]:
        """Return, for each address, up to which id messages to it may have left the log."""
        return dict(await self._connections.fetch(gone, list(addresses)))  # type: ignore[arg-type]  # rows of two

    async def position(self, prefix: str, topic: str) -> Position:
        """Return where a topic stands now."""
        await self.extent()  # begins a log if there is none
        [(position_now,)] = await self._connections.fetch(position, topic, prefix)
        return Position.parse(position_now)

    async def places_at(self, addresses: Sequence[str], moment: Moment) -> dict[str, PlaceInTopic]:
        """Return where a moment lies in each of some topics, by their addresses."""
        places: dict[str, PlaceInTopic] = {}
        while len(places) < len(addresses):
            some = addresses[len(places) : len(places) + _LOOK_UPS_AT_ONCE]
            rows = await self._connections.fetch(find_time, some, moment.time, moment.seconds_ago)
            if any(begin_after is None for _, _, begin_after in rows):
                await self.extent()  # there is no log yet, or no longer: this begins one
            else:
                places |= {address: PlaceInTopic(*place) for address, *place in rows}
        return places

    async def history(
        self, address: str, *, since: PointInTopic | None, until: PointInTopic | None, limit: int
    ) -> list[Arrival]:
        """Return the last messages of an address, or the first after a point, up to another; without expired ones.

        They are in the order of their ids. If this log never gave a position, everything that it has comes after it.
        """
        up_to = GREATEST_ID if until is None else await self._last_until(address, until)
        if since is not None:
            after = await self._last_until(address, since)
        else:
            [(first,)] = await self._connections.fetch(position_before_latest, address, up_to, limit)
            after = GREATEST_ID if first is None else first - 1
        arrivals: list[Arrival] = []
        while len(arrivals) < limit:
            page = await self.page({address: after}, up_to=up_to, most=min(limit, PAGE_ROWS), is_replay=True)
            arrivals += [arrival for arrival in page.arrivals if arrival.envelope is not None]
            if not page.is_full:
                break
            after = page.arrivals[-1].id
        return arrivals[:limit]

    async def _last_until(self, address: str, point: PointInTopic) -> int:
        if not isinstance(point, Position):
            return (await self.places_at([address], point))[address].last_before
        extent, after = await self.extent(), point.to_id()
        return 0 if extent.leaves_out(after) or after > extent.last_id else after

    async def _complete(self, arrival: Arrival, *, size: int) -> None:
        """Read the rest of a payload; one that leaves the log meanwhile is gone."""
        while arrival.envelope is not None and len(arrival.envelope) < size:
            begin = len(arrival.envelope) + 1
            rows = await self._connections.fetch(rest_of_message, begin, arrival.address, arrival.id)
            arrival.envelope = arrival.envelope + rows[0][0] if rows else None
