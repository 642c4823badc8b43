"""Sends numbered messages and writes down what becomes of each."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from pgchannels import MessageLayer, PgChannelsError, Position
from tests.chaos.journal import CHANNEL, CLAIMED, GROUP, QUEUE, TOPIC, Failed, Journal, Sending, Sent

_TRY_AGAIN_SECONDS: Final = 0.2
_JOB_EXPIRY_SECONDS: Final = 3600  # longer than a run: no job expires


class Sender:
    """One sender; a payload tells its name, the target, and the message's number there."""

    def __init__(self, name: str, layer: MessageLayer, journal: Journal) -> None:
        self._name = name
        self._layer = layer
        self._journal = journal
        self._numbers: Counter[str] = Counter()

    async def send(self, target: str, filler: str = "") -> Position | None:
        """Send the next message to a target; None when that failed."""
        (sent,) = await self.send_all([target], filler)
        return sent

    async def send_all(self, targets: Sequence[str], filler: str = "") -> Sequence[Position | None]:
        """Send the next message to each target, in one call when they are several topics."""
        numbered = [(target, self.next_number(target)) for target in targets]
        try:
            positions = await self._send(
                [(target, self.payload(target, number, filler)) for target, number in numbered]
            )
        except PgChannelsError as error:
            for target, number in numbered:
                self._journal.write(Failed(target, number, error.may_have_been_sent, repr(error)))
            return [None] * len(targets)
        for (target, number), position in zip(numbered, positions, strict=True):
            self._journal.write(Sent(target, number, position))
        return positions

    async def send_surely(self, target: str) -> Position:
        """Send messages to a target until one gets there."""
        while (position := await self.send(target)) is None:  # noqa: ASYNC110 (a pause, no wait)
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
        return position

    def next_number(self, target: str) -> int:
        """Write down that a send begins; return the number of the message there."""
        number = self._numbers[target]
        self._numbers[target] += 1
        self._journal.write(Sending(target, number))
        return number

    def payload(self, target: str, number: int, filler: str) -> dict[str, Any]:
        """The payload of a message."""
        # With a type, as what is sent by layers of Channels.
        return {"type": "chaos.message", "sender": self._name, "target": target, "number": number, "filler": filler}

    async def _send(self, messages: Sequence[tuple[str, Any]]) -> Sequence[Position]:
        [(target, payload), *others] = messages
        if others:
            return await self._layer.publish_many([(name.removeprefix(TOPIC), payload) for name, payload in messages])
        if target.startswith((TOPIC, GROUP)):
            return [await self._layer.publish(target.removeprefix(TOPIC).removeprefix(GROUP), payload)]
        if target.startswith(CLAIMED):
            return [await self._layer.send(target.removeprefix(CLAIMED), payload, expiry=_JOB_EXPIRY_SECONDS)]
        return [await self._layer.send(target.removeprefix(CHANNEL).removeprefix(QUEUE), payload)]
