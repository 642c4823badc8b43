"""Between arrivals and what users get of them: opens payloads, and passes over what cannot be read."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from pgchannels.codec import Codec
from pgchannels.errors import UnreadableMessage
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.bursts import Bursts

logger: logging.Logger = logging.getLogger("pgchannels")


class Payloads:
    """Of one node. `unreadable` counts messages and notifications; a burst of one kind is one line of the log."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.unreadable: int = 0
        self._bursts = Bursts()

    def read(self, arrival: Arrival) -> tuple[Arrival, Any] | None:
        """A message with a new copy of its payload; None when it cannot be read, and was passed over."""
        try:
            return arrival, self._open(arrival)
        except UnreadableMessage as error:
            self.pass_over(arrival, error)
            return None

    def readable(self, arrivals: Iterable[Arrival]) -> Iterator[tuple[Arrival, Any]]:
        """Messages with their payloads, without those that cannot be read."""
        return filter(None, map(self.read, arrivals))

    def pass_over(self, arrival: Arrival, error: UnreadableMessage) -> None:
        """Count and log a message that cannot be read."""
        self.note_unreadable("passed over message %d to %s: %s", arrival.id, arrival.address, error)

    def note_unreadable(self, text: str, *arguments: object) -> None:
        """Count and log; the text without its arguments says of which kind it is."""
        self.unreadable += 1
        if self._bursts.begins(text):
            logger.warning("%s; further ones are only counted", text % arguments)

    def _open(self, arrival: Arrival) -> Any:
        assert arrival.envelope is not None
        if not self._codec.is_sealing:
            return self._codec.decode(arrival.envelope)
        if arrival.plain is None:
            arrival.plain = self._codec.open(arrival.envelope, bound_to=arrival.bound_to)
        return self._codec.decode(arrival.plain)
