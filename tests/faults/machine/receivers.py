"""Receivers of the machine: each has calls under way, one or several, which may outlast the step that made them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pgchannels import Gap, GapReason, LayerClosed, MessageLayer, MessagesLost, Subscription
from pgchannels.django import PostgresChannelLayer
from tests.faults.machine.groups import Seat
from tests.faults.machine.model import Model, Reception, Send

GAP_TYPE: Final = "machine.gap"  # of the messages in which a layer of Channels tells of gaps


class Receiver:
    """One subscription, channel or consumer of a queue, and what it got.

    :param receive: the next message, where `on_gap` takes the gaps before it; it may raise them, too.
    """

    def __init__(self, model: Model, layer_name: str, reception: Reception) -> None:
        self.layer_name = layer_name
        self.reception = reception
        self.calls_given_up = 0
        self._model = model
        model.receptions.append(reception)
        self._receive: Callable[[], Awaitable[Send]] | None = None
        self._entering: asyncio.Task[None] | None = None
        self._leave: Callable[[], Awaitable[None]] | None = None
        self._calls: list[asyncio.Task[None]] = []  # the longest waiting one first

    def __str__(self) -> str:
        return self.reception.name

    @property
    def calls_under_way(self) -> int:
        """How many calls wait for a message."""
        return sum(not call.done() for call in self._calls)

    @property
    def is_subscription(self) -> bool:
        """Whether it can be ended."""
        return self._entering is not None

    @property
    def is_receiving(self) -> bool:
        """Whether it has begun, and not ended."""
        return self._receive is not None and not self.reception.has_ended

    def enter(self, subscription: Subscription) -> asyncio.Task[None]:
        """Begin with a subscription; the task ends when it is entered."""
        self._leave = lambda: subscription.__aexit__(None, None, None)
        self._entering = asyncio.create_task(self._enter(subscription), name=f"enter {self.reception.name}")
        return self._entering

    def begin(self, receive: Callable[[], Awaitable[object]]) -> None:
        """Begin with a call that returns payloads."""

        async def next_send() -> Send:
            return self._sent(await receive())

        self._receive = next_send
        self.reception.began = self._model.now()

    def ask(self, *, calls: int = 1) -> "list[asyncio.Task[None]]":
        """Call until so many calls are under way, or have ended; none when it cannot be called."""
        while self.is_receiving and len(self._calls) < calls:
            self._calls.append(asyncio.create_task(self._next(), name=f"receive by {self.reception.name}"))
        return [*self._calls] if self.is_receiving else []

    def take_ended(self) -> bool:
        """Whether some calls have ended; what they did is noted, and they are forgotten."""
        ended = [call for call in self._calls if call.done()]
        self._calls = [call for call in self._calls if call not in ended]
        for call in ended:
            if not call.cancelled():
                call.result()
        return bool(ended)

    async def cancel(self, *, calls: int | None = None) -> None:
        """Cancel the longest waiting calls, or all; they may have come to an end all the same."""
        cancelled = self._calls[:calls]
        self.calls_given_up += sum(not call.done() for call in cancelled)
        for call in cancelled:
            call.cancel()
        if cancelled:
            await asyncio.wait(cancelled)
        self.take_ended()

    async def end(self) -> None:
        """End the subscription; a channel or a queue is only left."""
        await self.cancel()
        await self.leave()

    async def leave(self) -> None:
        """End the subscription; calls that are under way come to their end with it."""
        self.reception.has_ended = True
        if self._entering is not None:
            self._entering.cancel()
            await asyncio.wait([self._entering])
        if self._leave is not None:
            await self._leave()
            if self._calls:
                await asyncio.wait(self._calls)
        self.take_ended()

    def note_gap(self, gap: Gap) -> None:
        """Take a gap at its place."""
        self.reception.note(gap, self._model.now())

    async def receive_to_the_last(self) -> None:
        """Receive until a message that is marked as the last one."""
        while (asked := self.ask()) and not any(send.is_last for send in self.reception.received):
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            self.take_ended()

    async def receive_on(self) -> None:
        """Receive for as long as it can."""
        while asked := self.ask():
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            self.take_ended()

    async def _enter(self, subscription: Subscription) -> None:
        try:
            await subscription.__aenter__()
        except LayerClosed:
            assert self.reception.has_ended, f"{self.reception.name} was refused although its layer is open"
            return

        async def next_send() -> Send:
            message = await anext(subscription)
            send = self._sent(message.payload)
            send.store_at(message.position)
            return send

        self._receive = next_send
        self.reception.began = self._model.now()

    async def _next(self) -> None:
        assert self._receive is not None
        try:
            send = await self._receive()
        except MessagesLost as lost:
            self._end_or_go_on(lost)
        except LayerClosed:
            assert self.reception.has_ended, f"{self.reception.name} was ended although its layer is open"
        else:
            self.reception.note(send, self._model.now())

    def _end_or_go_on(self, lost: MessagesLost) -> None:
        if "has ended" in str(lost):
            assert self.reception.capacity is not None, f"{self.reception.name} was too slow: {lost}"
            assert lost.count, str(lost)
            self.reception.has_ended = True
        else:
            self.note_gap(lost.gap)

    def _sent(self, payload: object) -> Send:
        assert isinstance(payload, dict)
        return self._model.sends[payload["label"]]


def subscriber(
    model: Model, layer_name: str, layer: MessageLayer, reception: Reception, *, when_full: str
) -> tuple[Receiver, asyncio.Task[None]]:
    """A subscription of a layer, and the task that enters it."""
    receiver = Receiver(model, layer_name, reception)
    subscription = layer.subscribe(
        reception.target,
        since=reception.since,
        capacity=reception.capacity or 100_000,
        when_full=when_full,  # type: ignore[arg-type]
        on_gap=receiver.note_gap,
    )
    return receiver, receiver.enter(subscription)


async def channel_reader(model: Model, layer_name: str, layer: MessageLayer) -> Receiver:
    """The reader of a new channel of a layer."""
    channel = await layer.new_channel()
    receiver = Receiver(model, layer_name, Reception(f"channel of {layer_name} (#{len(model.receptions)})", channel))
    receiver.begin(lambda: layer.receive(channel))
    return receiver


async def member(model: Model, seat: Seat, layer: PostgresChannelLayer) -> Receiver:
    """The reader of a new channel that can be in groups."""
    channel = await layer.new_channel()
    name = f"member at {seat} (#{len(model.receptions)})"
    receiver = Receiver(model, seat.layer_name, Reception(name, channel, is_member=True))

    async def receive() -> dict[str, Any]:
        while (message := await layer.receive(channel))["type"] == GAP_TYPE:
            receiver.note_gap(Gap(GapReason(message["reason"]), message["count"]))
        return message

    receiver.begin(receive)
    return receiver


def consumer(model: Model, layer_name: str, layer: MessageLayer, queue: str) -> Receiver:
    """A consumer of a work queue; it counts as one from its first call on."""
    receiver = Receiver(model, layer_name, Reception(f"{queue} by {layer_name} (#{len(model.receptions)})", queue))
    receiver.begin(lambda: layer.receive(queue, on_gap=receiver.note_gap))
    receiver.reception.began = None

    return receiver
