"""Points in a topic, from or up to which it is read: positions and moments."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from pgchannels.arguments import TEN_YEARS, shown
from pgchannels.errors import InvalidPosition
from pgchannels.messages import Position, Positions

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by the database's clock: a time, or so many seconds ago."""

    time: datetime | None
    seconds_ago: float


PointInTopic: TypeAlias = Position | Moment
Point: TypeAlias = Positions | Moment  # in each of some topics
PointOrText: TypeAlias = Position | Positions | str | datetime | timedelta


def require_point(name: str, value: object) -> Point:
    """Return the point that positions, their text, a time or a duration stand for.

    :raises InvalidPosition: the value is anything else, or none that a message can have.
    """
    if isinstance(value, Position | Positions) and value.is_possible:
        return Positions(value) if isinstance(value, Position) else value
    try:
        if isinstance(value, datetime):
            return _at(name, value)
        if isinstance(value, timedelta):
            return _before_now(name, value)
        return Positions.parse(value)  # type: ignore[arg-type]  # anything but text is refused
    except InvalidPosition:
        raise
    except Exception:  # no position, or of a class whose methods fail
        raise InvalidPosition(
            f"{name}={shown(value)} is neither a Position that a message can have, the text of one such as '1-512',"
            " a datetime nor a timedelta"
        ) from None


def require_no_server(name: str, point: Point) -> Point:
    """Return a point of a layer with one database.

    :raises InvalidPosition: its positions name servers.
    """
    positions = (point.least, *point.ahead.values()) if isinstance(point, Positions) else ()
    if server := next((position.server for position in positions if position.server), ""):
        raise InvalidPosition(
            f"{name}={shown(str(point))} names the server {server!r}, and this layer has one database without a name:"
            f" give it a name, MessageLayer({{{server!r}: url}}), or begin anew"
        )
    return point


def in_topic(point: Point, topic: str) -> PointInTopic:
    """Return the point in one topic."""
    return point.of(topic) if isinstance(point, Positions) else point


def _at(name: str, time: datetime) -> Moment:
    if time.utcoffset() is None:
        raise InvalidPosition(
            f"{name}={shown(time)} has no time zone: give it one, as `datetime.now(UTC)` and `time.astimezone()` do"
        )
    # Within what the database can hold, and never by way of local times, which the first and last years lack.
    microseconds = min(max(time - _FIRST, timedelta()), _LAST - _FIRST) // _MICROSECOND
    return Moment(_FIRST + microseconds * _MICROSECOND, 0.0)


def _before_now(name: str, duration: timedelta) -> Moment:
    if duration <= timedelta():
        raise InvalidPosition(f"{name}={shown(duration)} is not positive: a timedelta says how long ago")
    return Moment(None, min(duration.total_seconds(), TEN_YEARS))
