"""Decides when a message is too old to be received."""

from pgchannels.database.connections import Connections
from pgchannels.receiving.arrival import Arrival


class Expiry:
    """The expiry of one layer. Messages from the log carry their own expiry, all others have this layer's.

    If a message is already too old when it is heard, it was delayed, or the clock was set back: then nothing expires
    until the clock is read again.
    """

    def __init__(self, expiry_seconds: float, connections: Connections) -> None:
        self._microseconds = expiry_seconds * 1_000_000
        self._connections = connections
        self._distrusted: int | None = None  # number of a clock reading

    def hear(self, arrival: Arrival) -> None:
        """Check a message that was just heard."""
        if self.is_over(arrival):
            self._distrusted = self._connections.clock_readings

    def is_over(self, arrival: Arrival) -> bool:
        """Whether a message has expired."""
        ends: float | None = arrival.expires_microseconds
        if ends is None:
            ends = arrival.published_microseconds + self._microseconds
        if ends > self._connections.database_time() * 1_000_000:
            return False
        return self._distrusted != self._connections.clock_readings
