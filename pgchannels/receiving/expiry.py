"""When a message is too old to be received."""

from pgchannels.database.connections import Connections
from pgchannels.receiving.arrival import Arrival


class Expiry:
    """Of one layer. What was read from the log knows how long it lives, anything else lives as long as this layer's.

    A message that is too old when it is heard tells that it took its time, or that the clock was set back: nothing is
    too old then until the clock is read again.
    """

    def __init__(self, expiry_seconds: float, connections: Connections) -> None:
        self._microseconds = expiry_seconds * 1_000_000
        self._connections = connections
        self._distrusted: int | None = None  # reading of the clock

    def hear(self, arrival: Arrival) -> None:
        """Look at a message that was just told."""
        if self.is_over(arrival):
            self._distrusted = self._connections.clock_readings

    def is_over(self, arrival: Arrival) -> bool:
        """Whether the time of a message is over."""
        ends: float | None = arrival.expires_microseconds
        if ends is None:
            ends = arrival.published_microseconds + self._microseconds
        if ends > self._connections.database_time() * 1_000_000:
            return False
        return self._distrusted != self._connections.clock_readings
