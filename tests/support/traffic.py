"""Messages of every kind and size between layers, and a ledger of what became of each."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from pgchannels import DatabaseUnavailable, Gap, MessageLayer, Position

LARGE: Final = 9_000  # more than a notification takes
_END: Final = "the end"

Label = tuple[int, int]  # which sender, and which of its messages


@dataclass(slots=True)
class Stream:
    """One way from all senders to one receiver."""

    name: str
    send: Callable[[MessageLayer, Any], Awaitable[Position]]
    sent: dict[Label, Position] = field(default_factory=dict)
    uncertain: set[Label] = field(default_factory=set)  # may have been sent
    unsent: set[Label] = field(default_factory=set)
    events: list[Label | Gap] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def labels(self) -> list[Label]:
        """What was received, in its order."""
        return [event for event in self.events if not isinstance(event, Gap)]

    @property
    def gaps(self) -> list[Gap]:
        """The gaps that the receiver was told of."""
        return [event for event in self.events if isinstance(event, Gap)]

    async def send_from(self, layer: MessageLayer, sender: int, numbers: range) -> None:
        """Send messages one after another; every third is too large for a notification."""
        for number in numbers:
            label, padding = (sender, number), "x" * (LARGE if number % 3 == 0 else 0)
            try:
                self.sent[label] = await self.send(layer, [sender, number, padding])
            except DatabaseUnavailable as error:
                (self.uncertain if error.may_have_been_sent else self.unsent).add(label)

    async def send_end(self, layer: MessageLayer) -> None:
        """Send the last message; once more when a crash may have taken it: a second one does no harm."""
        while True:
            try:
                await self.send(layer, _END)
            except DatabaseUnavailable as error:
                if error.may_have_been_sent:
                    continue
                raise
            return

    async def collect(self, receive: Callable[[], Awaitable[Any]]) -> None:
        """Receive until the end."""
        while (payload := await receive()) != _END:
            sender, number, _ = payload
            self.events.append((sender, number))
            self.arrived.set()

    def verify(self) -> None:
        """Every message came once and in order, or lies in a gap that was told where it should have come."""
        labels = self.labels
        positions = [self.sent[label] for label in labels if label in self.sent]
        assert len(labels) == len(set(labels)), f"{self.name}: delivered twice"
        assert positions == sorted(positions), f"{self.name}: out of order"
        assert not self.unsent & set(labels), f"{self.name}: delivered what was not sent"
        assert not self._untold(), f"{self.name}: lost without a word"
        for sender in {sender for sender, _ in labels}:
            numbers = [label for label in labels if label[0] == sender and label in self.sent]
            assert numbers == sorted(numbers), f"{self.name}: one sender's messages are out of order"

    def _untold(self) -> list[Label]:
        received = set(self.labels)
        lost = sorted((label for label in self.sent if label not in received), key=self.sent.__getitem__)
        untold: list[Label] = []
        is_told = False
        for event in self.events:
            if isinstance(event, Gap):
                is_told = True
            elif event in self.sent:
                before = [label for label in lost if self.sent[label] < self.sent[event]]
                lost = lost[len(before) :]
                untold += [] if is_told else before
                is_told = False
        return untold + ([] if is_told else lost)


@dataclass(frozen=True, slots=True)
class Traffic:
    """A topic, a channel and a work queue, from all senders to one receiver."""

    senders: Sequence[MessageLayer]
    streams: Sequence[Stream]
    counts: dict[int, int] = field(default_factory=dict)

    async def send(self, count: int, *, senders: Sequence[int]) -> None:
        """Let senders send so many further messages on every stream, each one after another."""
        async with asyncio.TaskGroup() as group:
            for sender in senders:
                first = self.counts.get(sender, 0)
                self.counts[sender] = first + count
                for stream in self.streams:
                    group.create_task(stream.send_from(self.senders[sender], sender, range(first, first + count)))

    async def arriving(self) -> None:
        """Return once every stream has brought a further message."""
        for stream in self.streams:
            stream.arrived.clear()
        for stream in self.streams:
            await stream.arrived.wait()

    async def finish(self) -> None:
        """Send the last message on every stream; leaving `traffic` then waits until it has come."""
        for stream in self.streams:
            await stream.send_end(self.senders[0])

    def verify(self) -> None:
        """See `Stream.verify`."""
        for stream in self.streams:
            stream.verify()


@asynccontextmanager
async def traffic(senders: Sequence[MessageLayer], receiver: MessageLayer) -> AsyncIterator[Traffic]:
    """Streams from `senders` to `receiver`, who receives until `finish`."""
    channel_name = await receiver.new_channel()
    topic = Stream("topic", lambda layer, payload: layer.publish("room", payload))
    channel = Stream("channel", lambda layer, payload: layer.send(channel_name, payload))
    queue = Stream("queue", lambda layer, payload: layer.send("jobs", payload))
    async with (
        receiver.subscribe("room", on_gap=topic.events.append) as subscription,
        asyncio.TaskGroup() as receiving,
    ):

        async def next_payload() -> Any:
            return (await anext(subscription)).payload

        receiving.create_task(topic.collect(next_payload))
        receiving.create_task(channel.collect(lambda: receiver.receive(channel_name, on_gap=channel.events.append)))
        receiving.create_task(queue.collect(lambda: receiver.receive("jobs", on_gap=queue.events.append)))
        yield Traffic(senders, [topic, channel, queue])
