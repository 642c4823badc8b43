"""What the machine acts on: a server, a proxy, layers behind and beside it, and all that is under way in them."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Final, Literal

import asyncpg

from pgchannels import MessageLayer, Position
from pgchannels.django import PostgresChannelLayer
from pgchannels.embedded import EmbeddedServer
from tests.faults.machine.groups import Groups, Seat, Visit
from tests.faults.machine.model import Model, Reception
from tests.faults.machine.receivers import GAP_TYPE, Receiver, channel_reader, consumer, member, subscriber
from tests.faults.machine.senders import CAPACITY, HASTY, QUEUE, Burst, Senders
from tests.faults.machine.trace import account, state_of, tasks
from tests.faults.machine.verification import (
    unaccounted,
    verify_flushes,
    verify_member,
    verify_queue,
    verify_senders,
    verify_stream,
)
from tests.support.proxy import Direction, Proxy
from tests.support.waiting import POLL_SECONDS, within

BEHIND, BESIDE = "behind", "beside"  # the proxy, as is HASTY
CROWD_BEHIND, CROWD_BESIDE = "crowd behind", "crowd beside"  # layers of Channels, whose channels are in groups
SEATS: Final = [Seat(layer_name, number) for layer_name in (CROWD_BEHIND, CROWD_BESIDE) for number in (0, 1)]
STANDING: Final = {
    BEHIND: 3,
    BESIDE: 3,
    HASTY: 0,
    CROWD_BEHIND: 2,
    CROWD_BESIDE: 2,
}  # receivers that a layer begins with
HASTE_SECONDS: Final = 0.4
HEARTBEAT_SECONDS: Final = 0.3
# The model knows of no time, and an example takes minutes on a busy machine. With the defaults messages would expire in
# it by themselves, after one minute, and be told as lost while the model waits for them; sends would fail after half.
PATIENCE_SECONDS: Final = 3600
LIMIT_SECONDS: Final = 60  # of what must be told of queues in the end
MOST_CRASHES: Final = 2  # in one example: they take the most time
HUGE: Final = 1_000_000  # bytes
SLOW_BYTES_PER_SECOND: Final = 500_000


AnyLayer = MessageLayer | PostgresChannelLayer


class World:
    """Layers on one fresh database. Every verb returns when it is done, or when it cannot be done for now.

    :param most_slow_links: how often links may be slow: it takes seconds each time.
    """

    def __init__(self, server: EmbeddedServer, url: str, *, most_slow_links: int) -> None:
        self.model = Model()
        self.receivers: list[Receiver] = []
        self.frozen: Literal["", "existing", "all"] = ""
        self._server = server
        self._url = url
        self._proxy = Proxy(url)
        self._plain: dict[str, MessageLayer] = {}
        self._crowds: dict[str, PostgresChannelLayer] = {}
        self._layers: dict[str, AnyLayer] = {}  # both
        self._seats: dict[Seat, Receiver] = {}
        self._senders = Senders(self.model, self._layers)
        self._groups = Groups(self.model, self._crowds, is_excused=self._is_cut_off)
        self._entering: set[asyncio.Task[None]] = set()
        self._calls_lost_in_closing = 0
        self._slow_links_left = most_slow_links
        self._awaiting: Receiver | None = None

    async def open(self) -> list[Receiver]:
        """Open every layer; returns the receivers that there are from the beginning."""
        await self._proxy.__aenter__()
        behind, beside = self._proxy.url, self._url
        self._plain |= {
            BEHIND: _new_layer(behind, send_timeout=PATIENCE_SECONDS),
            HASTY: _new_layer(behind, send_timeout=HASTE_SECONDS),
            BESIDE: _new_layer(beside, send_timeout=PATIENCE_SECONDS),
        }
        self._crowds |= {CROWD_BEHIND: _new_crowd(behind), CROWD_BESIDE: _new_crowd(beside)}
        self._layers.update(self._plain)
        self._layers.update(self._crowds)
        for layer in self._plain.values():
            await layer.open()
        return [receiver for name in STANDING for receiver in await self._standing_receivers(name)]

    async def send(self, bursts: Sequence[Burst], *, turns: int | None) -> None:
        """Send messages at once, and wait for them for so many turns of the loop, or until they are sent."""
        sending = {self._senders.begin(burst): burst.sender for burst in bursts}
        if turns is None:
            await asyncio.gather(*[sent for sent, sender in sending.items() if not self._is_cut_off(sender)])
        await _turn(turns or 1)

    async def subscribe(
        self, layer_name: str, topic: str, *, since: Position | None, when_full: str, calls: int = 0
    ) -> Receiver:
        """Subscribe, and begin so many calls; other policies than to keep all come with a mailbox that is soon full."""
        capacity = None if when_full == "keep" else CAPACITY
        name = f"{topic} at {layer_name} ({when_full}, #{len(self.receivers)})"
        reception = Reception(name, topic, since=since, capacity=capacity)
        layer, policy = self._plain[layer_name], "fail" if when_full == "keep" else when_full
        receiver, entering = subscriber(self.model, layer_name, layer, reception, when_full=policy)
        self.receivers.append(receiver)
        self._entering.add(entering)
        if self._is_cut_off(layer_name):
            await _turn(3)
        else:
            await entering
        receiver.ask(calls=calls)
        return receiver

    async def receive(self, receiver: Receiver, *, count: int, calls: int = 1) -> None:
        """Receive so many; a message that must come is waited for, otherwise the calls stay under way."""
        for _ in range(count):
            self._begin_to_consume(receiver)
            if not (asked := receiver.ask(calls=calls)):
                return
            await (self._wait_for(receiver, asked) if self._must_come(receiver) else _turn(3))
            if not receiver.take_ended():
                return

    async def receive_everywhere(self, *, count: int) -> None:
        """Let each receiver that there is receive, one after another: consumers of a queue compete."""
        for receiver in self.receivers:
            await self.receive(receiver, count=count)

    async def cancel(self, receiver: Receiver, *, turns: int) -> None:
        """Call, unless a call is under way, and cancel all after so many turns of the loop."""
        self._begin_to_consume(receiver)
        receiver.ask()
        await _turn(turns)
        await receiver.cancel()

    async def send_and_cancel(self, receiver: Receiver, sender: str, *, turns: int, calls: int = 1) -> None:
        """Let so many calls be under way, send to the receiver, and cancel the first when the message comes, about."""
        self._begin_to_consume(receiver)
        receiver.ask(calls=calls)
        await self.send([Burst(sender, receiver.reception.target)], turns=None)
        await _turn(turns)
        await receiver.cancel(calls=1)

    async def send_and_end(self, receiver: Receiver, sender: str, *, turns: int, calls: int) -> None:
        """The same, and end the subscription, if it is one, whose calls come to their end with it."""
        if receiver.is_subscription:
            receiver.ask(calls=calls)
            await self.send([Burst(sender, receiver.reception.target)], turns=None)
            await _turn(turns)
            await receiver.leave()

    async def end(self, receiver: Receiver) -> None:
        """End a subscription; of channels and queues only the call under way."""
        await (receiver.end() if receiver.is_subscription else receiver.cancel())

    async def reopen(self, layer_name: str, *, is_cut: bool) -> list[Receiver]:
        """Close a layer with all that is under way in it, and open it again.

        A frozen network comes back meanwhile; other connections are perhaps reset before and while the layer closes.
        """
        is_cut_off = self._is_cut_off(layer_name)
        for receiver in self.receivers:
            if receiver.layer_name == layer_name:
                receiver.reception.has_ended = True
        # Claims may be answered too late to be given back to the queue.
        self._calls_lost_in_closing += is_cut_off and layer_name in self._plain
        self._note_closing(layer_name)
        if is_cut:
            await self.cut()
        layer = self._layers[layer_name]
        closing = asyncio.create_task(layer.close(), name=f"close {layer_name}")
        await _turn(3)
        if is_cut:
            await self.cut()
        if is_cut_off:
            await self.restore(held="drop")
        await closing
        self._note_closing(layer_name)
        if isinstance(layer, MessageLayer):
            await layer.open()
        return await self._standing_receivers(layer_name)

    async def cut(self) -> None:
        """Reset the connections of the layers behind the proxy."""
        self._proxy.cut()

    async def cut_amid_traffic(self, burst: Burst) -> None:
        """Reset the connections behind the proxy while messages come one after another, until the last one is sent."""
        sending = asyncio.create_task(self._senders.send_in_turn(burst), name="traffic")
        await _turn(burst.count)
        self._proxy.cut()
        await sending

    async def change_membership(self, by: str, group: str, seat: Seat, *, is_addition: bool) -> None:
        """Add the channel in a seat to a group, or discard it."""
        changing = self._groups.begin(by, group, seat, self.channel_in(seat), is_addition=is_addition)
        if self._is_cut_off(by) or self._is_cut_off(seat.layer_name):
            await _turn(3)
        else:
            await changing

    async def visit(self, visits: Sequence[Visit], *, rounds: int, is_cut: bool) -> None:
        """Let channels come to groups and go again, many times, all visits at once; perhaps connections are reset."""
        if self.frozen:
            return
        visiting = [asyncio.create_task(self._visit(visit, rounds=rounds), name=f"{visit}") for visit in visits]
        if is_cut:
            await _turn(20 * rounds)
            self._proxy.cut()
        await asyncio.gather(*visiting)

    async def flush_amid_traffic(self, by: str, bursts: Sequence[Burst], *, turns: int) -> None:
        """Flush while messages are sent and received."""
        if self.frozen or not await self._are_leases_those_of_the_living():
            return  # a flush waits for every node, also for those that could not give their leases back
        for receiver in self.receivers:
            self._begin_to_consume(receiver)
            receiver.ask()
        sending = asyncio.create_task(self._send_in_turn(bursts), name="traffic")
        await _turn(turns)
        await self._groups.flush(by)
        await sending
        for receiver in self.receivers:
            receiver.take_ended()

    async def send_through_slow_links(self, topic: str) -> None:
        """Send a message that takes longer than several heartbeats to those behind the proxy, and others behind it."""
        if self.frozen or self._slow_links_left == 0:
            return
        self._slow_links_left -= 1
        self._proxy.slow(SLOW_BYTES_PER_SECOND)
        for target in (topic, self.channel_of(BEHIND)):
            await self._senders.begin(Burst(BESIDE, target, size=HUGE))
        for target in ("news", "room"):
            await self._senders.begin(Burst(BESIDE, target))
        await self.receive_everywhere(count=CAPACITY)
        await self.restore(held="forward")

    async def freeze(self, *directions: Direction, new_connections: bool) -> None:
        """Hold what goes through the proxy."""
        self._proxy.freeze(*directions, new_connections=new_connections)
        self.frozen = "all" if new_connections or self.frozen == "all" else "existing"

    async def restore(self, *, held: Literal["forward", "drop"]) -> None:
        """End what `freeze` began."""
        self._proxy.restore(held=held)
        self.frozen = ""
        for layer_name in self._senders.unaware:
            self._note_closing(layer_name)
        self._senders.unaware = set()

    async def restart(self) -> None:
        """Restart the server in order."""
        await asyncio.to_thread(self._server.restart, "fast")
        await self._settle()

    async def crash(self) -> None:
        """Kill the server, and start it again on what it had written."""
        if len(self.model.crashes) == MOST_CRASHES:
            return
        self.model.crash()
        self._senders.unaware = {layer_name for layer_name in self._layers if self._is_cut_off(layer_name)}
        await asyncio.to_thread(self._server.kill)
        await asyncio.to_thread(self._server.start)
        await self._settle()

    async def expire(self, target: str) -> None:
        """Let everything expire that is in the log for a target."""
        connection = await asyncpg.connect(self._url)
        try:
            self.model.expire(target)
            address, channel = _place_in_log(target)
            await connection.execute(
                "UPDATE pgchannels.message SET expires_at = now()"
                " WHERE address LIKE $1 AND channel IS NOT DISTINCT FROM $2 AND expires_at > now()",
                address,
                channel,
            )
        finally:
            await connection.close()

    def channel_in(self, seat: Seat) -> str:
        """The channel in a seat at present."""
        return self._seats[seat].reception.target

    def channel_of(self, layer_name: str) -> str:
        """The channel that a layer reads from at present."""
        return next(
            receiver.reception.target
            for receiver in reversed(self.receivers)
            if receiver.layer_name == layer_name and "!" in receiver.reception.target
        )

    def explain(self) -> str:
        """What there is to tell of a step that has just failed."""
        waiting = [self._awaiting.reception] if self._awaiting is not None else []
        told = waiting or {reception.target: reception for reception in self.model.receptions}.values()
        nodes = [f"{name}: {state_of(layer)}" for name, layer in self._plain.items()]
        changes = [f"{change.began:5}: {change}" for change in self._groups.memberships.changes]
        waited = f"waited for {self._awaiting}, frozen: {self.frozen or 'nothing'}"
        return "\n".join([waited, *nodes, tasks(), *changes, *(account(self.model, reception) for reception in told)])

    @property
    def most_held(self) -> int:
        """How many claimed messages can have gone with a layer that was closed while it was cut off."""
        return self._calls_lost_in_closing * CAPACITY

    async def _standing_receivers(self, layer_name: str) -> list[Receiver]:
        if layer_name in self._crowds:
            return [await self._sit_down(seat) for seat in SEATS if seat.layer_name == layer_name]
        if not STANDING[layer_name]:
            return []
        layer = self._plain[layer_name]
        standing = [
            await channel_reader(self.model, layer_name, layer),
            consumer(self.model, layer_name, layer, QUEUE),
        ]
        self.receivers += standing
        return [*standing, await self.subscribe(layer_name, "room", since=None, when_full="keep")]

    async def _sit_down(self, seat: Seat) -> Receiver:
        receiver = self._seats[seat] = await member(self.model, seat, self._crowds[seat.layer_name])
        self.receivers.append(receiver)
        return receiver

    async def _visit(self, visit: Visit, *, rounds: int) -> None:
        channel = self.channel_in(visit.seat)
        for _ in range(rounds):
            await self._groups.begin(visit.by, visit.group, visit.seat, channel, is_addition=True)
            for target in (visit.group, channel):
                await self._senders.begin(Burst(visit.sender, target, visit.count, visit.size))
            if not visit.stays:
                await self._groups.begin(visit.by, visit.group, visit.seat, channel, is_addition=False)

    async def _send_in_turn(self, bursts: Sequence[Burst]) -> None:
        await asyncio.gather(*[self._senders.send_in_turn(burst) for burst in bursts])

    async def _are_leases_those_of_the_living(self) -> bool:
        connection = await asyncpg.connect(self._url)
        try:
            return bool(await connection.fetchval("SELECT count(*) FROM pgchannels.node") == len(self._layers))
        finally:
            await connection.close()

    def _note_closing(self, layer_name: str) -> None:
        self._senders.note_closing(layer_name)
        self._groups.note_closing(layer_name)

    def _begin_to_consume(self, receiver: Receiver) -> None:
        if receiver.reception.began is None and not receiver.reception.has_ended:
            receiver.reception.began = self.model.now()

    async def _wait_for(self, receiver: Receiver, asked: "list[asyncio.Task[None]]") -> None:
        self._awaiting = receiver
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        self._awaiting = None

    def _must_come(self, receiver: Receiver) -> bool:
        reception = receiver.reception
        if self.frozen == "all" and self._is_cut_off(receiver.layer_name):
            return False
        if reception.target != QUEUE:
            return reception.capacity is None and bool(self.model.awaited(reception))
        consumers = [other for other in self.receivers if other.reception.target == QUEUE]
        received = [send for other in consumers for send in other.reception.received]
        may_be_elsewhere = sum(
            other.calls_under_way + other.calls_given_up for other in consumers if other is not receiver
        )
        return self.model.fewest_waiting(QUEUE, received) > may_be_elsewhere + self.most_held

    def _is_cut_off(self, layer_name: str) -> bool:
        return bool(self.frozen) and layer_name not in {BESIDE, CROWD_BESIDE}

    async def _settle(self) -> None:
        if not self.frozen:
            await self._finish_what_began()

    async def _finish_what_began(self) -> None:
        await self._senders.finish()
        await self._groups.finish()
        entering, self._entering = self._entering, set()
        for task in entering:
            await asyncio.wait([task])
            if not task.cancelled():  # as it is where the subscription was ended before it had begun
                task.result()

    async def finish(self) -> None:
        """End every fault, let everything arrive, and receive it."""
        await self.restore(held="forward")
        await self._finish_what_began()
        await within(self._proxy.settled())
        await self._finish_streams()
        await self._finish_queue()

    async def _finish_streams(self) -> None:
        streams = [r for r in self.receivers if r.is_receiving and r.reception.target != QUEUE]
        receiving = {asyncio.create_task(stream.receive_to_the_last()): stream for stream in streams}
        try:
            while unfinished := {stream.reception.target for task, stream in receiving.items() if not task.done()}:
                # A subscription that drops messages may drop this one, and a channel may be full.
                for target in sorted(unfinished):
                    await self._send_last(target)
                await asyncio.wait(receiving, timeout=2)
            await asyncio.gather(*receiving)
        finally:
            await _end(receiving)

    async def _send_last(self, target: str) -> None:
        await self._senders.begin(Burst(BESIDE, target, is_last=True))

    async def _finish_queue(self) -> None:
        consumers = [r for r in self.receivers if r.is_receiving and r.reception.target == QUEUE]
        for receiver in consumers:
            self._begin_to_consume(receiver)
        receiving = [asyncio.create_task(receiver.receive_on()) for receiver in consumers]
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                while unaccounted(self.model, self.model.of(QUEUE))[self.most_held :] or self._untold():
                    await asyncio.wait(receiving, timeout=POLL_SECONDS, return_when=asyncio.FIRST_EXCEPTION)
        except TimeoutError:
            pass  # the verification says what is missing
        finally:
            await _end(receiving)

    def _untold(self) -> list[str]:
        return [reception.name for reception in self.model.of(QUEUE) if self.model.is_untold(reception)]

    def verify(self) -> None:
        """Every promise was kept."""
        verify_senders(self.model)
        verify_flushes(self.model)
        for receiver in self.receivers:
            if receiver.reception.is_member:
                verify_member(self.model, self._groups.memberships, receiver.reception)
            elif receiver.reception.target != QUEUE:
                verify_stream(self.model, receiver.reception)
        verify_queue(self.model, self.model.of(QUEUE), most_held=self.most_held)

    async def close(self) -> None:
        """Close everything."""
        await self.restore(held="drop")
        for receiver in self.receivers:
            await receiver.end()
        await asyncio.gather(*[layer.close() for layer in self._layers.values()])
        await self._finish_what_began()
        await self._proxy.__aexit__(None, None, None)


def _new_layer(url: str, *, send_timeout: float) -> MessageLayer:
    return MessageLayer(
        url, heartbeat=HEARTBEAT_SECONDS, capacity=CAPACITY, expiry=PATIENCE_SECONDS, send_timeout=send_timeout
    )


def _new_crowd(url: str) -> PostgresChannelLayer:
    return PostgresChannelLayer(
        url,
        heartbeat=HEARTBEAT_SECONDS,
        capacity=100_000,  # so that no member misses anything for want of room
        expiry=PATIENCE_SECONDS,
        send_timeout=PATIENCE_SECONDS,
        on_gap=GAP_TYPE,
    )


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _turn(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


def _place_in_log(target: str) -> tuple[str, str | None]:
    if "!" in target:
        return "node:%", target
    return ("queue:%" if target == QUEUE else f"topic:asgi:{target}"), None
