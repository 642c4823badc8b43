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
        self._since = since
        self._mailbox = Mailbox(capacity=capacity, when_full=when_full)
        self._node: Node | None = None
        self._begins: dict[str, int] = {}
        self._unread: dict[str, int] = {}
        self._replay: deque[Arrival] = deque()

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
        self._begins = dict(zip(self._topics, begins, strict=True))
        if self._since is not None:
            self._unread = dict.fromkeys(self._topics, self._since.to_id())
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
        while self._unread and not self._replay:
            await self._read_page(node)
        return self._replay.popleft() if self._replay else await self._mailbox.get()

    async def _read_page(self, node: Node) -> None:
        page = await node.read_log(self._unread, up_to=max(self._begins.values()), limit=_PAGE_MESSAGES)
        for arrival in page:
            topic = topic_of_address(arrival.address)
            self._unread[topic] = arrival.id
            if arrival.id <= self._begins[topic]:
                self._replay.append(arrival)
        if not page:
            self._unread = {}

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
