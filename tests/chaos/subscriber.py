"""A process that subscribes, and receives from a channel of its own: `python -m tests.chaos.subscriber PART`."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final, Literal

from pgchannels import Gap, GapReason, MessagesLost, Position, Positions, Subscription
from pgchannels.servers.beginnings import positions_on
from tests.chaos.journal import CHANNEL, TOPIC, Began, Ended, GapTold, Received
from tests.chaos.ledger import LAST
from tests.chaos.process import Player, play

WIDEST: Final = "wide"
_CHANNEL: Final = "channel"


@dataclass(frozen=True, slots=True)
class _Receiver:
    """One of the subscriptions of this process; one that fails is resumed from where it was."""

    name: str
    topics: Sequence[str]
    capacity: int
    when_full: Literal["fail", "drop_newest", "drop_oldest"]


def _receivers(topics: Sequence[str]) -> list[_Receiver]:
    half = len(topics) // 2
    return [
        _Receiver(WIDEST, topics, 1_000, "drop_newest"),
        _Receiver("narrow", topics[:half], 100, "drop_oldest"),
        _Receiver("failing", topics[half:], 100, "fail"),
    ]


class Awaited:
    """The last messages that are still to come, by receiver and target."""

    def __init__(self, player: Player, awaited: set[tuple[str, str]]) -> None:
        self._player = player
        self._awaited = awaited

    def note(self, receiver: str, target: str, sender: str) -> None:
        """Note a message; the last one of all is reported."""
        if sender == LAST and self._awaited:
            self._awaited.discard((receiver, target))
            if not self._awaited:
                self._player.report("caught up")


async def subscribe(player: Player) -> None:
    """Receive everything until told to finish."""
    channel = await player.layer.new_channel()
    receivers = _receivers(player.part.topics)
    awaited = Awaited(
        player,
        {(receiver.name, TOPIC + topic) for receiver in receivers for topic in receiver.topics}
        | {(_CHANNEL, CHANNEL + channel)},
    )
    async with asyncio.TaskGroup() as receiving:
        begun = [asyncio.Event() for _ in receivers]
        tasks = [
            receiving.create_task(_keep_subscribed(player, receiver, awaited, begin))
            for receiver, begin in zip(receivers, begun, strict=True)
        ]
        tasks.append(receiving.create_task(_receive_from_channel(player, channel, awaited)))
        await begin_to_expect(player, _CHANNEL, [CHANNEL + channel])
        await asyncio.gather(*[begin.wait() for begin in begun])
        player.report("ready", channel)
        await player.finished.wait()
        for task in tasks:
            task.cancel()


async def _keep_subscribed(player: Player, receiver: _Receiver, awaited: Awaited, begun: asyncio.Event) -> None:
    since = None if player.part.since is None else _of(receiver, player.part.since)
    for number in count(1):
        reception = _Reception(player, receiver, f"{receiver.name}.{number}", awaited)
        since = await reception.run(since, begun)


def _of(receiver: _Receiver, positions: Mapping[str, str]) -> dict[str, Position]:
    return {TOPIC + topic: Position.parse(positions[TOPIC + topic]) for topic in receiver.topics}


async def _receive_from_channel(player: Player, channel: str, awaited: Awaited) -> None:
    def tell(gap: Gap) -> None:
        player.journal.write(GapTold(_CHANNEL, gap.reason, gap.count))

    while True:
        payload: Any = await player.layer.receive(channel, on_gap=tell)
        player.journal.write(Received(_CHANNEL, CHANNEL + channel, payload["sender"], payload["number"]))
        awaited.note(_CHANNEL, CHANNEL + channel, payload["sender"])


async def begin_to_expect(player: Player, receiver: str, targets: Sequence[str]) -> dict[str, Position]:
    """Send a message to each target, and expect it and all behind it."""
    beginnings = {target: _just_before(await player.sender.send_surely(target)) for target in targets}
    for target, position in beginnings.items():
        player.journal.write(Began(receiver, target, position))
    return beginnings


def _just_before(position: Position) -> Position:
    return replace(position, offset=position.offset - 1)


class _Reception:
    """One subscription, from its beginning until it fails."""

    def __init__(self, player: Player, receiver: _Receiver, name: str, awaited: Awaited) -> None:
        self._player = player
        self._receiver = receiver
        self._name = name
        self._awaited = awaited
        self._targets = [TOPIC + topic for topic in receiver.topics]
        self._received: dict[str, Position] = {}

    async def run(self, since: dict[str, Position] | None, begun: asyncio.Event) -> dict[str, Position]:
        """Receive until the subscription fails; returns the positions after which another one may resume."""
        async with self._subscription(since) as subscription:
            if since is None:
                self._received = await begin_to_expect(self._player, self._name, self._targets)
            else:
                self._resume(since)
            begun.set()
            while await self._receive(subscription):
                pass
        self._player.journal.write(Ended(self._name))
        return self._received

    def _subscription(self, since: Mapping[str, Position] | None) -> Subscription:
        receiver = self._receiver
        return self._player.layer.subscribe(
            *receiver.topics,
            since=None if since is None else _together(since),
            capacity=receiver.capacity,
            when_full=receiver.when_full,
            on_gap=None if receiver.when_full == "fail" else self._tell,
        )

    def _resume(self, since: Mapping[str, Position]) -> None:
        self._received = dict(since)
        for target, position in since.items():
            self._player.journal.write(Began(self._name, target, position))

    def _tell(self, gap: Gap) -> None:
        self._player.journal.write(GapTold(self._name, gap.reason, gap.count))

    async def _receive(self, subscription: Subscription) -> bool:
        try:
            message = await anext(subscription)
        except MessagesLost as error:
            self._tell(error.gap)
            return error.gap.reason is not GapReason.CAPACITY  # a full mailbox ends this subscription
        sender, number = message.payload["sender"], message.payload["number"]
        target = TOPIC + message.topic
        self._received[target] = message.position
        self._player.journal.write(Received(self._name, target, sender, number, message.position))
        self._awaited.note(self._receiver.name, target, sender)
        return True


def _together(since: Mapping[str, Position]) -> Positions:
    servers: dict[str, dict[str, Position]] = {}
    for target, position in since.items():
        servers.setdefault(position.server, {})[target.removeprefix(TOPIC)] = position
    return Positions.by_topic(servers[""]) if "" in servers else positions_on(servers, first=min(servers))


if __name__ == "__main__":
    play(subscribe)
