"""A subscriber's view of its topics."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Self

from pgchannels.errors import LayerClosed, MessagesLost
from pgchannels.messages import Gap, GapReason, Message, Position, Positions
from pgchannels.names import topic_of_address
from pgchannels.points import Point, PointOrText, require_no_server, require_point
from pgchannels.process.node import Node
from pgchannels.receiving.arrival import Arrival
from pgchannels.receiving.mailbox import Item, Mailbox, WhenFull
from pgchannels.receiving.payloads import Opened
from pgchannels.receiving.replay import Cursor


class Subscription:
    """The messages of some topics, each once and in order: `async with` subscribes, `async for` receives.

    It receives every message published after `async with` was entered and, with `since`, earlier ones, too.
    Tasks that iterate concurrently share the messages: each goes to the task that has waited longest.

    :raises MessagesLost: on iteration, in the place of a gap; the next iteration continues after it. With `on_gap`,
        that function is called instead. If the mailbox was full and `when_full` is `"fail"`, the subscription has
        ended: every further iteration raises the error again.
    :raises LayerClosed: on iteration, if the layer was closed, or in another event loop than it was entered in.
    """

    def __init__(
        self,
        find_node: Callable[[], Node],
        topics: tuple[str, ...],
        *,
        since: PointOrText | None,
        capacity: int,
        when_full: WhenFull,
        on_gap: Callable[[Gap], None] | None,
    ) -> None:
        self._find_node = find_node
        self._topics = topics
        self._since = None if since is None else self._point(since)
        self._capacity = capacity
        self._when_full = when_full
        self._on_gap = on_gap
        self._mailbox = Mailbox(capacity=capacity, when_full=when_full)
        self._next: Callable[[], Awaitable[Item]] = self._mailbox.get
        self._node: Node | None = None
        self._cursor: Cursor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._received: dict[str, int] = {}  # by address: the id up to which everything was received

    @property
    def lost(self) -> int:
        """How many messages this subscription has lost, as far as they were counted."""
        return self._mailbox.lost

    @property
    def position(self) -> Positions:
        """Where it stands, to be passed as `since` later: everything up to here was received, or reported as lost.

        It also moves on while nothing is published, with the heartbeat. So the last position of a silent subscription
        does not leave the log, as that of its last message does.

        :raises LayerClosed: the subscription has never been entered.
        """
        if self._node is None:
            raise not_entered()
        is_up_to_date = self._cursor is None and self._mailbox.is_up_to_date
        catch_up = self._node.receiver.catch_up
        until = catch_up.routed_until if is_up_to_date else 0
        ids = {
            topic_of_address(address): max(last if catch_up.is_credible(last) else 0, until)
            for address, last in self._received.items()
        }
        return Positions.by_topic({topic: Position.from_id(last) for topic, last in ids.items()})

    def resume(self, since: PointOrText) -> Self:
        """Begin after a position, whatever `since` was before, when it is entered next; return the subscription.

        :raises InvalidPosition: it is none that a message can have.
        """
        self._since = self._point(since)
        return self

    async def __aenter__(self) -> Self:
        node = self._node = self._find_node()
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox(
            capacity=self._capacity,
            when_full=self._when_full,
            has_expired=node.receiver.has_expired,
            on_lost=node.losses.at(f"a subscription to {', '.join(self._topics):.200}"),
        )
        node.receiver.topics.keep(self, self._mailbox)
        self._next = self._mailbox.get
        try:
            if self._since is None:
                self._received = await node.receiver.topics.subscribe(self._topics, self, self._mailbox)
            else:
                after = await node.begin_of_replay(self._topics, since=self._since)
                self._cursor = cursor = await node.receiver.topics.replay(after, self, self._mailbox)
                self._next = partial(self._next_of, node, cursor)
                self._received = dict(cursor.positions)
        except BaseException:
            self._leave(node)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._node is not None:
            self._leave(self._node)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._node is None:
            raise not_entered()
        if asyncio.get_running_loop() is not self._loop:
            raise LayerClosed("a subscription is received from in the event loop in which it was entered")
        while True:
            item = await self._next()
            if isinstance(item, Arrival):
                self._received[item.address] = item.id
                received = self._node.receiver.payloads.read(item)
                if isinstance(received, Opened):
                    return message_from(received)
                self._mailbox.lost += 1
                self._tell(received)
            elif isinstance(item, Gap):
                self._tell(item)

    def _point(self, since: PointOrText) -> Point:
        return require_no_server("since", require_point("since", since))

    def _tell(self, gap: Gap) -> None:
        if self._on_gap is not None:
            self._on_gap(gap)
        elif gap.reason is not GapReason.CAPACITY:
            raise MessagesLost(gap)  # the subscriber chose to drop what exceeds its capacity: `lost` counts it

    async def _next_of(self, node: Node, cursor: Cursor) -> Item:
        await node.receiver.replays.read_on(cursor)
        if cursor.items:
            return cursor.items.popleft()
        self._cursor = None
        self._next = self._mailbox.get
        return await self._mailbox.get()

    def _leave(self, node: Node) -> None:
        node.receiver.topics.forget(self)
        node.receiver.topics.unsubscribe(self._topics, self)
        if self._cursor is not None:
            node.receiver.replays.forget(self._cursor)
        self._mailbox.close(LayerClosed("the subscription has ended"))


def not_entered() -> LayerClosed:
    """Return the error for a subscription that was never entered."""
    return LayerClosed("enter the subscription first: `async with layer.subscribe(…) as subscription`")


def message_from(opened: Opened) -> Message:
    """Return a message as users get it."""
    arrival = opened.arrival
    topic = topic_of_address(arrival.address)
    return Message(topic, opened.payload, arrival.id, arrival.published_microseconds, opened.headers, arrival.server)
