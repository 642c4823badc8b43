"""A subscription to topics on several servers: one mailbox, which all of them fill."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pgchannels.database.connections import together
from pgchannels.errors import LayerClosed
from pgchannels.messages import Gap, GapReason, Position, Positions
from pgchannels.names import topic_of_address
from pgchannels.points import Point, PointOrText, require_point
from pgchannels.process.node import Node
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.mailbox import Item, Mailbox, WhenFull
from pgchannels.receiving.replay import Cursor
from pgchannels.servers.beginnings import Beginnings, positions_on
from pgchannels.subscription import Subscription, not_entered


@dataclass(eq=False, slots=True)
class Feed:
    """What one server brings: the router of its node delivers here.

    `received` says, for each address, the id up to which everything was received. While there is a cursor, the server
    still replays.
    """

    server: str
    node: Node
    topics: tuple[str, ...]
    mailbox: Mailbox
    received: dict[str, int] = field(default_factory=dict)
    cursor: Cursor | None = None

    def put(self, arrival: Arrival) -> None:
        """Put a message into the mailbox of the subscription."""
        arrival.server = self.server
        self.mailbox.put(arrival)

    def lose(self, gap: Gap) -> None:
        """Report that messages of this server were lost."""
        self.mailbox.lose(gap)

    def close(self, error: Exception) -> None:
        """End the subscription."""
        self.mailbox.close(error)

    @property
    def has_caught_up(self) -> bool:
        """Whether the router delivers already, behind what the cursor still holds."""
        return self.cursor is not None and self.cursor.is_finished

    def has_all_since(self, position: Position) -> bool:
        """Whether nothing has left the log of the server since a position on it."""
        return 0 < self.node.receiver.catch_up.extent.gone_until <= position.to_id()

    async def begin(self) -> None:
        """Receive from now on."""
        self.received = await self.node.receiver.topics.subscribe(self.topics, self, self)

    async def replay(self, since: Point, beginnings: Beginnings | None) -> None:
        """Receive from a point on."""
        if beginnings is None:
            after = await self.node.begin_of_replay(self.topics, since=since)
        else:
            start = self.node.receiver.catch_up.extent.start  # of a topic of which nothing is said
            after = {topic: beginnings.on(topic, self.server).to_id() or start for topic in self.topics}
        self.cursor = await self.node.receiver.topics.replay(after, self, self)
        self.received = dict(self.cursor.positions)

    def take_replayed(self) -> Item | None:
        """Take the next item that was read, if there is one; forget the cursor once it has caught up."""
        if self.cursor is None or not self.cursor.is_ready:
            return None
        if self.cursor.items:
            item = self.cursor.items.popleft()
            if isinstance(item, Arrival):
                item.server = self.server
            return item
        self.cursor = None
        return None

    def positions(self, *, is_up_to_date: bool) -> dict[str, Position]:
        """Return where each topic stands on this server."""
        catch_up = self.node.receiver.catch_up
        until = catch_up.routed_until if is_up_to_date and self.cursor is None else 0
        return {
            topic_of_address(address): Position.from_id(max(last if catch_up.is_credible(last) else 0, until))
            for address, last in self.received.items()
        }

    def leave(self) -> None:
        """Receive no more."""
        self.node.receiver.topics.forget(self)
        self.node.receiver.topics.unsubscribe(self.topics, self)
        if self.cursor is not None:
            self.node.receiver.replays.forget(self.cursor)


class SubscriptionToServers(Subscription):
    """Keeps the order of each topic. Between topics on different servers there is none.

    :param find_nodes: returns the nodes of some servers; raises an error if one is not there.
    :param servers_of: returns the servers that a topic is received from.
    :param first: the server of positions that name none.
    """

    def __init__(
        self,
        find_nodes: Callable[[Collection[str]], Mapping[str, Node]],
        topics: tuple[str, ...],
        *,
        servers_of: Callable[[str], Collection[str]],
        first: str,
        since: PointOrText | None,
        capacity: int,
        when_full: WhenFull,
        on_gap: Callable[[Gap], None] | None,
    ) -> None:
        super().__init__(
            lambda: find_nodes([first])[first],
            topics,
            since=since,
            capacity=capacity,
            when_full=when_full,
            on_gap=on_gap,
        )
        self._find_nodes = find_nodes
        self._servers_of = servers_of
        self._first = first
        self._feeds: dict[str, Feed] = {}
        self._has_arrived = asyncio.Event()  # something that waits in the mailbox

    @property
    def position(self) -> Positions:
        """As that of any subscription; names the server of each topic."""
        if not self._feeds:
            raise not_entered()
        is_up_to_date = self._mailbox.is_up_to_date
        feeds = self._feeds.values()
        on_servers = {feed.server: feed.positions(is_up_to_date=is_up_to_date) for feed in feeds}
        return positions_on(on_servers, first=self._first)

    async def __aenter__(self) -> Self:
        topics: dict[str, list[str]] = {}
        for topic in self._topics:
            for server in self._servers_of(topic):
                topics.setdefault(server, []).append(topic)
        nodes = self._find_nodes(topics)
        self._loop = asyncio.get_running_loop()
        self._has_arrived = asyncio.Event()  # which belongs to this loop from its first use on
        self._node = first = next(iter(nodes.values()))
        self._mailbox = Mailbox(
            capacity=self._capacity,
            when_full=self._when_full,
            has_expired=lambda arrival: nodes[arrival.server].receiver.has_expired(arrival),
            on_lost=first.losses.at(f"a subscription to {', '.join(self._topics):.200}"),
            on_left=self._has_arrived.set,
        )
        self._feeds = {
            server: Feed(server, node, tuple(topics[server]), self._mailbox) for server, node in nodes.items()
        }
        self._next = self._next_of_feeds
        try:
            await self._begin()
        except BaseException:
            self._leave(first)
            raise
        return self

    async def _begin(self) -> None:
        for feed in self._feeds.values():
            feed.node.receiver.topics.keep(feed, self._mailbox)
        if self._since is None:
            await together(*(feed.begin() for feed in self._feeds.values()))
            return
        beginnings = Beginnings(self._since, first=self._first) if isinstance(self._since, Positions) else None
        if beginnings and any(self._has_moved(topic, beginnings) for topic in self._topics):
            self._mailbox.lose(Gap(GapReason.MOVED, None))
        await together(*(feed.replay(self._since, beginnings) for feed in self._feeds.values()))

    def _has_moved(self, topic: str, beginnings: Beginnings) -> bool:
        """Whether a topic may have messages on a server from which it is no longer received.

        Not if it was already received from here, and so lately that the log still has everything since: the former
        server has been beside the new one for longer.
        """
        servers = self._servers_of(topic)
        return beginnings.leave_out(topic, servers) and not any(
            self._feeds[server].has_all_since(beginnings.on(topic, server)) for server in servers
        )

    async def _next_of_feeds(self) -> Item:
        item = await self._taken()
        if isinstance(item, Arrival):
            self._feeds[item.server].received[item.address] = item.id
        return item

    async def _taken(self) -> Item:
        """Take from the mailbox or from what a server replays, whichever has something."""
        while replaying := self._replaying():
            # What the log held comes before what the same server has delivered since.
            if (item := _replayed([feed for feed in replaying if feed.has_caught_up])) is not None:
                return item
            if not self._mailbox.is_up_to_date:
                break  # before what others replay: that can wait, and does not fill the mailbox
            if (item := _replayed(replaying)) is not None:
                return item
            await self._something_to_take()
        return await self._mailbox.get()

    async def _something_to_take(self) -> None:
        cursors = {feed.node: feed.cursor for feed in self._replaying() if feed.cursor is not None}
        if not cursors or any(cursor.is_ready for cursor in cursors.values()):
            return
        pages: list[asyncio.Future[Any]] = [node.receiver.replays.ask(cursor) for node, cursor in cursors.items()]
        self._has_arrived.clear()
        arrival = asyncio.ensure_future(self._has_arrived.wait())
        try:
            await asyncio.wait([*pages, arrival], return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()

    def _point(self, since: PointOrText) -> Point:
        return require_point("since", since)

    def _replaying(self) -> list[Feed]:
        return [feed for feed in self._feeds.values() if feed.cursor is not None]

    def _leave(self, _: Node) -> None:
        for feed in self._feeds.values():
            feed.leave()
        self._mailbox.close(LayerClosed("the subscription has ended"))


def _replayed(feeds: Iterable[Feed]) -> Item | None:
    return next((item for feed in feeds if (item := feed.take_replayed()) is not None), None)
