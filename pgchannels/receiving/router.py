"""Who on this node receives what: addresses, their positions and their receivers."""

import asyncio
import logging
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from pgchannels.messages import Gap, GapReason
from pgchannels.names import is_queue_address
from pgchannels.receiving.arrival import GREATEST_ID, Arrival
from pgchannels.receiving.losses import Bursts

_LONGEST_WAIT_SECONDS: Final = 5

logger: logging.Logger = logging.getLogger("pgchannels")


class Recipient(Protocol):
    """Takes the messages of addresses; neither call waits."""

    def put(self, arrival: Arrival) -> None:
        """Take a message; one without an envelope is lost."""

    def lose(self, gap: Gap) -> None:
        """Record that messages were lost, or may have been."""


@dataclass(slots=True)
class Route:
    """An address on this node.

    `position` is the id of the last routed message. This node is notified of messages with ids greater than
    `hosted_at`, once the database has said so. `beginning` holds recipients of messages after an id beyond `position`.
    """

    position: int | None = None
    hosted_at: int | None = None
    last_sent: int = 0  # by this node itself
    recipients: dict[Hashable, Recipient] = field(default_factory=dict)
    beginning: dict[Hashable, tuple[int, Recipient]] = field(default_factory=dict)

    @property
    def read_after(self) -> int | None:
        """The id after which the log has what is still to be routed; None until known."""
        if self.position is not None:
            return self.position
        return min((after for after, _ in self.beginning.values()), default=self.hosted_at)

    def recipients_of(self, arrival: Arrival) -> Iterable[Recipient]:
        """Return those that get a message."""
        if arrival.left_out is None:
            return self.recipients.values()
        return [recipient for key, recipient in self.recipients.items() if key != arrival.left_out]

    def begin_until(self, message_id: int) -> None:
        """Activate the recipients whose messages begin before an id."""
        for key, (after, recipient) in list(self.beginning.items()):
            if after < message_id:
                del self.beginning[key]
                self.recipients[key] = recipient


class Router:
    """Hands each message to all recipients of its address, once and in order."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._bursts = Bursts()

    def route(self, arrival: Arrival) -> None:
        """Deliver a message, or the loss of one, unless it was delivered already or has no recipients here."""
        route = self._routes.get(arrival.address)
        if route is None:
            return
        after = route.read_after if route.position is None else route.position
        if after is None or arrival.id <= after:
            return
        route.position = arrival.id
        if route.beginning:
            route.begin_until(arrival.id)
        for recipient in route.recipients_of(arrival):
            try:
                recipient.put(arrival)
            except Exception as error:
                self._note_failure(error)
                self._lose(recipient, Gap(GapReason.UNREADABLE, None))

    def is_awaited(self, arrival: Arrival) -> bool:
        """Whether `route` would deliver this message."""
        after = self.read_after(arrival.address)
        return after is not None and arrival.id > after

    def lose(self, gap: Gap) -> None:
        """Report a gap to every recipient, once."""
        self.lose_until(gap, dict.fromkeys(self._routes, GREATEST_ID))

    def lose_until(self, gap: Gap, gone_until: Mapping[str, int]) -> None:
        """Report a gap, once, to the recipients of some addresses that may lack ids up to the ones given."""
        told: dict[int, Recipient] = {}
        for address, until in gone_until.items():
            if (route := self._routes.get(address)) is not None and (route.read_after or 0) < until:
                told |= {id(recipient): recipient for recipient in route.recipients.values()}
                told |= {id(one): one for begin, one in route.beginning.values() if begin < until}
        for recipient in told.values():
            self._lose(recipient, gap)

    def reserve(self, address: str, key: Hashable) -> None:
        """Reserve an address for a recipient that has not begun; one that has the key already stays."""
        route = self._routes.setdefault(address, Route())
        if key not in route.beginning:
            route.recipients.setdefault(key, _NOBODY)

    def release(self, address: str, key: Hashable) -> None:
        """Undo `reserve`, unless a recipient has begun in that place."""
        route = self._routes.get(address)
        if route is not None and route.recipients.get(key) is _NOBODY:
            del route.recipients[key]

    def add(self, address: str, key: Hashable, recipient: Recipient, *, after: int) -> None:
        """Give a recipient everything after an id; nothing changes if it is here already and begins no later."""
        route = self._routes.setdefault(address, Route())
        begin, begun = route.beginning.get(key, (0, route.recipients.get(key)))
        if begun is recipient and begin <= after:
            return
        route.recipients.pop(key, None)
        route.beginning.pop(key, None)
        if route.position is not None and route.position >= after:
            route.recipients[key] = recipient
        else:
            route.beginning[key] = after, recipient

    def remove(self, address: str, key: Hashable) -> None:
        """Remove a recipient if it is there; the address stays until `take_unused`."""
        if route := self._routes.get(address):
            route.recipients.pop(key, None)
            route.beginning.pop(key, None)

    def host(self, address: str, position: int, *, is_marked: bool) -> None:
        """Record after which id this node is notified of messages; with `is_marked`, it is notified of that id, too."""
        route = self._routes.get(address)
        if route is not None and (is_marked or route.hosted_at is None):
            route.hosted_at = position

    def begin_anew(self, position: int, *, last_id: int) -> None:
        """Route everything in another log after an id, except what was already routed of it: up to `last_id`.

        Positions in the former log no longer count.
        """
        for route in self._routes.values():
            route.last_sent = 0
            route.hosted_at = None if route.hosted_at is None else position
            if route.position is None or not position < route.position <= last_id:
                route.position = None
                route.beginning |= {key: (position, recipient) for key, recipient in route.recipients.items()}
                route.recipients = {}
            route.beginning = {
                key: (after if position < after <= last_id else position, recipient)
                for key, (after, recipient) in route.beginning.items()
            }

    def note_sent(self, last_ids: Mapping[str, int]) -> None:
        """Record the last id that this node itself has sent to each address."""
        for address, message_id in last_ids.items():
            route = self._routes.get(address)
            if route is not None and route.hosted_at is not None and route.hosted_at < message_id:
                route.last_sent = message_id

    async def heard_own(self, address: str) -> None:
        """Wait until everything that this node sent to an address has come back, for five seconds at most."""
        route = self._routes.get(address)
        if route is None or (route.position or 0) >= route.last_sent:
            return
        waiting = _WaitingFor(route.last_sent)
        route.recipients[waiting] = waiting
        try:
            async with asyncio.timeout(_LONGEST_WAIT_SECONDS):
                await waiting.heard.wait()
        except TimeoutError:
            logger.warning("messages to %s take more than %s seconds to come back", address, _LONGEST_WAIT_SECONDS)
        finally:
            self.remove(address, waiting)

    def read_after(self, address: str) -> int | None:
        """Return the id after which the log has what is still to be routed; None if unknown."""
        route = self._routes.get(address)
        return None if route is None else route.read_after

    def hosted_at(self, address: str) -> int:
        """Return the id after which this node is notified of messages; 0 if unknown."""
        route = self._routes.get(address)
        return 0 if route is None else route.hosted_at or 0

    def brings(self, address: str, *, after: int) -> bool:
        """Whether routing from now on covers every message to an address after an id."""
        route = self._routes.get(address)
        if route is None or route.read_after is None:
            return False
        return route.position is not None or route.read_after <= after

    def position(self, address: str) -> int:
        """Return the id of the last routed message to an address; 0 if there was none."""
        route = self._routes.get(address)
        return 0 if route is None or route.position is None else route.position

    def positions(self, addresses: Collection[str] | None = None) -> dict[str, int]:
        """Return the id after which each address is read, for all or some. Queues are claimed, not read."""
        asked = self._routes if addresses is None else addresses
        found = {address: self.read_after(address) for address in asked if not is_queue_address(address)}
        return {address: after for address, after in found.items() if after is not None}

    def greatest_position(self) -> int:
        """Return the greatest id that was routed."""
        return max((route.position for route in self._routes.values() if route.position is not None), default=0)

    def addresses(self) -> list[str]:
        """Return all addresses that have a route."""
        return list(self._routes)

    def has(self, address: str) -> bool:
        """Whether an address has a route."""
        return address in self._routes

    def take_unused(self) -> list[str]:
        """Remove the routes without recipients and return their addresses."""
        unused = [address for address, route in self._routes.items() if not route.recipients and not route.beginning]
        for address in unused:
            del self._routes[address]
        return unused

    def _lose(self, recipient: Recipient, gap: Gap) -> None:
        try:
            recipient.lose(gap)
        except Exception as error:
            self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        # A defect: it must not affect other recipients.
        if self._bursts.begins("failure"):
            text = "a receiver failed to take what was routed to it; further failures are not logged"
            logger.error(text, exc_info=error)


class _Nobody:
    """Keeps the place of a recipient that has not begun."""

    def put(self, arrival: Arrival) -> None:
        """Ignore the message."""

    def lose(self, gap: Gap) -> None:
        """Ignore the gap."""


_NOBODY: Final = _Nobody()


class _WaitingFor:
    """Only notes that a message has arrived, or never will."""

    def __init__(self, message_id: int) -> None:
        self.heard = asyncio.Event()
        self._message_id = message_id

    def put(self, arrival: Arrival) -> None:
        if arrival.id >= self._message_id:
            self.heard.set()

    def lose(self, _: Gap) -> None:
        self.heard.set()
