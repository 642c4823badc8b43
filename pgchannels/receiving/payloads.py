"""Opens the payloads of arrivals for users; what cannot be read is lost."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pgchannels.codec import Codec
from pgchannels.errors import UnreadableMessage
from pgchannels.messages import Gap, GapReason, Header
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.losses import Bursts, Losses

logger: logging.Logger = logging.getLogger("pgchannels")


@dataclass(slots=True)  # not frozen: one is made for each message, and that would take twice as long
class Opened:
    """A message with copies of its payload and its headers."""

    arrival: Arrival
    payload: Any
    headers: Mapping[str, Header]


class PayloadReader:
    """Reads for one node. `unreadable` counts messages and notifications; a burst of one kind is logged once.

    :param may_be_unsealed: whether messages to a topic are accepted unencrypted although there are keys.
    """

    def __init__(self, codec: Codec, losses: Losses, *, may_be_unsealed: Callable[[str], bool]) -> None:
        self._codec = codec
        self._may_be_unsealed = may_be_unsealed
        self._losses = losses
        self.unreadable: int = 0
        self._bursts = Bursts()

    def read(self, arrival: Arrival) -> Opened | Gap:
        """Return a message with a new copy of its payload, or a gap if it cannot be read."""
        try:
            return self._open(arrival)
        except UnreadableMessage as error:
            return self.lose(arrival, error)

    def readable(self, arrivals: Iterable[Arrival]) -> Iterator[Opened]:
        """Yield messages with their payloads; skip unreadable ones, since no receiver is there to get a gap."""
        for arrival in arrivals:
            try:
                yield self._open(arrival)
            except UnreadableMessage as error:
                self._pass_over(arrival, error)

    def lose(self, arrival: Arrival, error: UnreadableMessage) -> Gap:
        """Count and log a message that its receiver cannot read; return the gap to report to the receiver."""
        self._pass_over(arrival, error)
        gap = Gap(GapReason.UNREADABLE, 1)
        self._losses.count(gap)
        return gap

    def _pass_over(self, arrival: Arrival, error: UnreadableMessage) -> None:
        self.note_unreadable("passed over message %d to %s: %s", arrival.id, arrival.address, error)

    def note_unreadable(self, text: str, *arguments: object) -> None:
        """Count and log; the text without its arguments is the kind."""
        self.unreadable += 1
        if self._bursts.begins(text):
            logger.warning("%s; further ones are only counted", text % arguments)

    def note_impossible(self) -> None:
        """Count and log a notification that belongs to no message."""
        self.note_unreadable("ignored a notification with an id that the log cannot have")

    def _open(self, arrival: Arrival) -> Opened:
        plain = arrival.envelope if not self._codec.is_sealing else arrival.plain or self._unsealed(arrival)
        assert plain is not None
        return Opened(arrival, self._codec.decode(plain), self._codec.headers(plain))

    def _unsealed(self, arrival: Arrival) -> bytes:
        assert arrival.envelope is not None
        arrival.plain = self._codec.open(
            arrival.envelope,
            bound_to=arrival.bound_to,
            may_be_plain=lambda: arrival.is_of_topic and self._may_be_unsealed(arrival.topic),
        )
        return arrival.plain
