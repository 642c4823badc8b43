"""Who on this node receives what: addresses, their positions and their receivers."""

import asyncio
import logging
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from pgchannels.messages import Gap
from pgchannels.names import is_queue_address
from pgchannels.receiving.arrival import Arrival

_LONGEST_WAIT_SECONDS: Final = 5

logger: logging.Logger = logging.getLogger("pgchannels")


class Receiver(Protocol):
    """Takes the messages of addresses; neither call waits."""

    def put(self, arrival: Arrival) -> None:
        """Take a message, or notice that one is lost: it has no envelope."""

    def lose(self, gap: Gap) -> None:
        """Take notice that messages were lost, or may have been."""


@dataclass(slots=True)
class Route:
    """An address on this node. `position` is the id of the last message; None until the database told one."""

    position: int | None = None
    last_sent: int = 0  # by this node itself
    receivers: dict[Hashable, Receiver] = field(default_factory=dict)


class Router:
    """Hands each message to all receivers of its address, once and in order."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}

    def route(self, arrival: Arrival) -> None:
        """Deliver a message, or that it is gone, unless it was delivered already or nobody is here for it."""
        route = self._routes.get(arrival.address)
        if route is not None and route.position is not None and arrival.id > route.position:
            route.position = arrival.id
            for receiver in route.receivers.values():
                receiver.put(arrival)

    def is_awaited(self, arrival: Arrival) -> bool:
        """Whether `route` would deliver this message."""
        route = self._routes.get(arrival.address)
        return route is not None and route.position is not None and arrival.id > route.position

    def lose(self, gap: Gap) -> None:
        """Tell every receiver, once, that it has lost messages, or may have."""
        receivers = {id(receiver): receiver for route in self._routes.values() for receiver in route.receivers.values()}
        for receiver in receivers.values():
            receiver.lose(gap)

    def add(self, address: str, key: Hashable, receiver: Receiver) -> Route:
        """Add a receiver, in the place of the one with the same key."""
        route = self._routes.setdefault(address, Route())
        route.receivers[key] = receiver
        return route

    def remove(self, address: str, key: Hashable) -> None:
        """Remove a receiver if it is there; the address stays until `take_unused`."""
        if route := self._routes.get(address):
            route.receivers.pop(key, None)

    def begin(self, address: str, position: int) -> None:
        """Note from which position on messages come, unless an earlier one is known."""
        route = self._routes.get(address)
        if route is not None and route.position is None:
            route.position = position

    def note_sent(self, last_ids: Mapping[str, int]) -> None:
        """Remember what this node itself has sent: the last id to each address."""
        for address, message_id in last_ids.items():
            if route := self._routes.get(address):
                route.last_sent = message_id

    async def heard_own(self, address: str) -> None:
        """Return when everything that this node has sent to an address has come back, or some seconds have passed."""
        route = self._routes.get(address)
        if route is None or route.position is None or route.position >= route.last_sent:
            return
        waiting = _WaitingFor(route.last_sent)
        route.receivers[waiting] = waiting
        try:
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                await waiting.heard.wait()
        except TimeoutError:
            logger.warning("messages to %s take more than %s seconds to come back", address, _LONGEST_WAIT_SECONDS)
        finally:
            route.receivers.pop(waiting, None)

    def position(self, address: str) -> int:
        """The position of an address that is hosted."""
        position = self._routes[address].position
        assert position is not None
        return position

    def is_read(self, address: str) -> bool:
        """Whether the address has a position from which the log is read on. Queues are claimed, not read."""
        route = self._routes.get(address)
        return route is not None and route.position is not None and not is_queue_address(address)

    def positions(self) -> dict[str, int]:
        """The positions of all addresses that are read."""
        return {address: self.position(address) for address in self._routes if self.is_read(address)}

    def addresses(self) -> list[str]:
        """All addresses that have a route."""
        return list(self._routes)

    def take_unused(self) -> list[str]:
        """Remove the routes without receivers and return their addresses."""
        unused = [
            address for address, route in self._routes.items() if not route.receivers and route.position is not None
        ]
        for address in unused:
            del self._routes[address]
        return unused


class _WaitingFor:
    """A receiver that only notes that a message has come, or will not come any more."""

    def __init__(self, message_id: int) -> None:
        self.heard = asyncio.Event()
        self._message_id = message_id

    def put(self, arrival: Arrival) -> None:
        if arrival.id >= self._message_id:
            self.heard.set()

    def lose(self, _: Gap) -> None:
        self.heard.set()
