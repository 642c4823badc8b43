"""A subscriber's view of its topics."""

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from pgchannels.delivery.arrival import Arrival
from pgchannels.delivery.mailbox import Mailbox, WhenFull
from pgchannels.errors import LayerClosed, UnreadableMessage
from pgchannels.messages import Message, Position
from pgchannels.names import topic_of_address
from pgchannels.node import Node

_PAGE_MESSAGES = 100


class Subscription:
    """The messages of some topics, each once and in order: `async with` subscribes, `async for` receives.

    Every message published after `async with` was entered is received, and with `since` those before it, too.

    :raises MessagesLost: on iteration, when the mailbox was full and `when_full` is 'fail'.
    :raises LayerClosed: on iteration, when the layer was closed.
    """

    def __init__(
        self,
        find_node: Callable[[], Node],
        topics: tuple[str, ...],
        *,
        since: Position | None,
        capacity: int,
        when_full: WhenFull,
    ) -> None:
        self._find_node = find_node
        self._topics = topics
        self._is_replayed = since is not None
        self._mailbox = Mailbox(capacity=capacity, when_full=when_full)
        self._node: Node | None = None
        self._replay: deque[Arrival] = deque()
        self._replay_until = 0
        self._received = dict.fromkeys(topics, 0 if since is None else since.to_id())

    @property
    def lost(self) -> int:
        """How many messages came while the mailbox was full, and were not kept."""
        return self._mailbox.lost

    async def __aenter__(self) -> Self:
        node = self._node = self._find_node()
        node.when_closed(self, self._mailbox.close)
        try:
            begins = await asyncio.gather(*[node.subscribe(topic, self, self._mailbox.put) for topic in self._topics])
        except BaseException:
            self._leave(node)
            raise
        if self._is_replayed:
            self._replay_until = max(begins)
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
            raise LayerClosed("enter the subscription first: `async with layer.subscribe(…) as subscription`")
        while True:
            arrival = await self._next_arrival(self._node)
            try:
                payload = self._node.payload_of(arrival)
            except UnreadableMessage as error:
                self._node.pass_over(arrival, error)
            else:
                return message_from(arrival, payload)

    async def _next_arrival(self, node: Node) -> Arrival:
        while self._replay_until and not self._replay:
            await self._read_page(node)
        while True:
            arrival = self._replay.popleft() if self._replay else await self._mailbox.get()
            topic = topic_of_address(arrival.address)
            # What came live while older messages were replayed may be among these.
            if arrival.id > self._received[topic]:
                self._received[topic] = arrival.id
                return arrival

    async def _read_page(self, node: Node) -> None:
        page = await node.read_log(self._received, up_to=self._replay_until, limit=_PAGE_MESSAGES)
        self._replay.extend(page)
        if not page:
            self._replay_until = 0

    def _leave(self, node: Node) -> None:
        node.when_closed(self, None)
        for topic in self._topics:
            node.unsubscribe(topic, self)
        self._mailbox.close(LayerClosed("the subscription has ended"))


def message_from(arrival: Arrival, payload: object) -> Message:
    """What a user gets of an arrival."""
    return Message(
        topic=topic_of_address(arrival.address),
        payload=payload,
        position=Position.from_id(arrival.id),
        published_at=arrival.published_at,
    )
