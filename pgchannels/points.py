"""Points in a topic, from or up to which it is read: positions and moments."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from pgchannels.arguments import TEN_YEARS, shown
from pgchannels.errors import InvalidPosition
from pgchannels.messages import Position

_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by the database's clock: a time, or so many seconds ago."""

    time: datetime | None
    seconds_ago: float


Point: TypeAlias = Position | Moment
PointOrText: TypeAlias = Position | str | datetime | timedelta


def require_point(name: str, value: object) -> Point:
    """Return the point that a position, its text, a time or a duration stands for.

    :raises InvalidPosition: the value is anything else, or none that a message can have.
    """
    if isinstance(value, Position) and value.is_possible:
        return value
    try:
        if isinstance(value, datetime):
            return _at(name, value)
        if isinstance(value, timedelta):
            return _before_now(name, value)
        return Position.parse(value)  # type: ignore[arg-type]  # anything but text is refused
    except InvalidPosition:
        raise
    except Exception:  # no position, or of a class whose methods fail
        raise InvalidPosition(
            f"{name}={shown(value)} is neither a Position that a message can have, the text of one such as '1-512',"
            " a datetime nor a timedelta"
        ) from None


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
