"""Receivers of the machine: each has at most one call under way, which may outlast the step that made it."""

import asyncio
from collections.abc import Awaitable, Callable

from pgchannels import Gap, LayerClosed, MessageLayer, MessagesLost, Subscription
from tests.faults.machine.model import Model, Reception, Send


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
        self._waiting: asyncio.Task[bool] | None = None

    def __str__(self) -> str:
        return self.reception.name

    @property
    def is_waiting(self) -> bool:
        """Whether a call is under way."""
        return self._waiting is not None and not self._waiting.done()

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

    def ask(self) -> asyncio.Task[bool] | None:
        """Call, unless a call is under way; its task tells whether a message came. None when it cannot be called."""
        if not self.is_receiving:
            return None
        if not self.is_waiting:
            self._waiting = asyncio.create_task(self._next(), name=f"receive by {self.reception.name}")
        return self._waiting

    async def cancel(self) -> None:
        """Cancel the call under way; it may have come to an end all the same."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self.calls_given_up += not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                waiting.result()

    async def end(self) -> None:
        """End the subscription; a channel or a queue is only left."""
        await self.cancel()
        self.reception.has_ended = True
        if self._entering is not None:
            self._entering.cancel()
            await asyncio.wait([self._entering])
        if self._leave is not None:
            await self._leave()

    def note_gap(self, gap: Gap) -> None:
        """Take a gap at its place."""
        self.reception.note(gap, self._model.now())

    async def receive_to_the_last(self) -> None:
        """Receive until a message that is marked as the last one."""
        while (asked := self.ask()) is not None:
            await asyncio.wait([asked])
            asked.result()
            if (received := self.reception.received) and received[-1].is_last:
                return

    async def receive_on(self) -> None:
        """Receive for as long as it can."""
        while (asked := self.ask()) is not None:
            await asyncio.wait([asked])
            asked.result()

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

    async def _next(self) -> bool:
        assert self._receive is not None
        try:
            send = await self._receive()
        except MessagesLost as lost:
            self._end_or_go_on(lost)
            return False
        except LayerClosed:
            assert self.reception.has_ended, f"{self.reception.name} was ended although its layer is open"
            return False
        self.reception.note(send, self._model.now())
        return True

    def _end_or_go_on(self, lost: MessagesLost) -> None:
        if "has ended" in str(lost):
            assert self.reception.capacity is not None, f"{self.reception.name} was too slow: {lost}"
            assert lost.count, str(lost)
            self.reception.has_ended = True
        else:
            self.note_gap(lost.gap)

    def _sent(self, payload: object) -> Send:
        assert isinstance(payload, list)
        return self._model.sends[payload[0]]


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


def consumer(model: Model, layer_name: str, layer: MessageLayer, queue: str) -> Receiver:
    """A consumer of a work queue; it counts as one from its first call on."""
    receiver = Receiver(model, layer_name, Reception(f"{queue} by {layer_name} (#{len(model.receptions)})", queue))
    receiver.begin(lambda: layer.receive(queue, on_gap=receiver.note_gap))
    receiver.reception.began = None

    return receiver
