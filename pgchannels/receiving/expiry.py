"""When a message is too old to be received."""

from collections.abc import Callable

from pgchannels.receiving.arrival import Arrival


class Expiry:
    """Of one layer. What was read from the log knows how long it lives, anything else lives as long as this layer's.

    :param database_time: the clock by which messages are published, in seconds since 1970.
    """

    def __init__(self, expiry_seconds: float, database_time: Callable[[], float]) -> None:
        self._microseconds = expiry_seconds * 1_000_000
        self._database_time = database_time

    def is_over(self, arrival: Arrival) -> bool:
        """Whether the time of a message is over."""
        ends: float | None = arrival.expires_microseconds
        if ends is None:
            ends = arrival.published_microseconds + self._microseconds
        return ends <= self._database_time() * 1_000_000
