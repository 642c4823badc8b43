"""The capacity shared by channels whose names are the same up to the `!`."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from pgchannels.receiving.arrival import Arrival


class _Expiring(Protocol):
    def expire(self) -> int: ...


class SharedCapacity:
    """Messages sent to channels that wait in several mailboxes, oldest first, and how many may wait.

    :param on_full: called when no place is left, and when there is one again.
    """

    __slots__ = ("__weakref__", "_on_full", "_waiting", "capacity")

    def __init__(self, capacity: int, *, on_full: Callable[[bool], None]) -> None:
        self.capacity: int = capacity
        self._waiting: OrderedDict[int, _Expiring] = OrderedDict()  # by the identity of the arrival
        self._on_full = on_full

    @property
    def taken(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def enter(self, arrival: Arrival, mailbox: _Expiring) -> None:
        """Take a place, even beyond the capacity: a message may be sent before senders know that it is full."""
        self._waiting[id(arrival)] = mailbox
        if self.taken == self.capacity:
            self._on_full(True)

    def leave(self, arrival: Arrival) -> None:
        """Give back a place."""
        del self._waiting[id(arrival)]
        if self.taken == self.capacity - 1:
            self._on_full(False)

    def expire(self) -> None:
        """Give back the places of messages that have expired."""
        while self._waiting and next(iter(self._waiting.values())).expire():
            pass
