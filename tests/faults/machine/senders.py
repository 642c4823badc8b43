"""Senders of the machine: what they send may be under way for longer than the step that sent it."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pgchannels import ChannelFull, DatabaseUnavailable, LayerClosed, MessageLayer, Position
from pgchannels.django import PostgresChannelLayer
from tests.faults.machine.model import Fate, Model, Send

LARGE: Final = 9_000  # more than a notification takes
CAPACITY: Final = 8  # of every channel and queue
QUEUE: Final = "jobs"
HASTY: Final = "hasty"  # gives up sends soon


@dataclass(frozen=True, slots=True)
class Burst:
    """Messages that are sent at once, to a topic (which is a group as well), channel or queue."""

    sender: str
    target: str
    count: int = 1
    size: int = 0
    is_last: bool = False

    def __str__(self) -> str:
        return f"{self.count} of {self.size} bytes by {self.sender} to {self.target}"


class Senders:
    """The layers as those who send, and what they may be told."""

    def __init__(self, model: Model, layers: Mapping[str, MessageLayer | PostgresChannelLayer]) -> None:
        self._model = model
        self._layers = layers
        self._sending: set[asyncio.Future[list[None]]] = set()
        self._closings: dict[str, list[int]] = defaultdict(list)
        self._was_full: set[str] = set()
        # Cut off when the server crashed: what they send may have gone to it before, for all that they know.
        self.unaware: set[str] = set()

    def begin(self, burst: Burst) -> "asyncio.Future[list[None]]":
        """Send; the future is done when every message is sent, or is not."""
        sends = [self._model.begin_send(burst.sender, burst.target, is_last=burst.is_last) for _ in range(burst.count)]
        if self._model.most_waiting_since(sends[-1]) >= CAPACITY:
            self._was_full.add(burst.target)
        sending = asyncio.gather(*[self._send(send, size=burst.size) for send in sends])
        self._sending.add(sending)
        return sending

    async def send_in_turn(self, burst: Burst) -> None:
        """Send each message when the one before is sent."""
        for _ in range(burst.count):
            await self.begin(replace(burst, count=1))

    def note_closing(self, sender: str) -> None:
        """Note that a layer begins to be closed, or has been: what is under way may fail until then."""
        self._closings[sender].append(self._model.now())

    async def finish(self) -> None:
        """Return when all is sent."""
        sending, self._sending = self._sending, set()
        await asyncio.gather(*sending)

    async def _send(self, send: Send, *, size: int) -> None:
        payload = {"type": "machine.message", "label": send.label, "filling": "x" * size}
        try:
            position = await _sent(self._layers[send.sender], send.target, payload)
        except ChannelFull:
            self._verify_full(send)
            send.fate = Fate.NOT_SENT
        except (DatabaseUnavailable, LayerClosed) as error:
            self._verify_excuse(send, error)
            send.fate = Fate.PERHAPS_SENT if error.may_have_been_sent else Fate.NOT_SENT
        else:
            if position is not None:
                send.store_at(position)
            send.fate = Fate.SENT
        send.ended = self._model.now()

    def _verify_full(self, send: Send) -> None:
        # A node tells others a little later that there is room again; of a queue the database knows.
        is_told_late = send.target in self._was_full and send.target != QUEUE
        assert is_told_late or self._model.most_waiting_since(send) > CAPACITY, f"{send.target} was not full: {send}"

    def _verify_excuse(self, send: Send, error: Exception) -> None:
        """Only crashes, closing and haste make a send fail; a connection that is lost does not."""
        excuses = [*self._model.crashes, *self._closings[send.sender]]
        is_excused = send.sender == HASTY or send.sender in self.unaware
        assert is_excused or any(moment > send.started for moment in excuses), f"{send}: {error}"


async def _sent(layer: MessageLayer | PostgresChannelLayer, target: str, payload: dict[str, object]) -> Position | None:
    """Send a message; a layer of Channels does not tell its position."""
    is_to_channel = target == QUEUE or "!" in target
    match layer, is_to_channel:
        case MessageLayer(), False:
            return await layer.publish(target, payload)
        case MessageLayer(), True:
            return await layer.send(target, payload)
        case PostgresChannelLayer(), False:
            await layer.group_send(target, payload)
        case PostgresChannelLayer(), True:
            await layer.send(target, payload)
    return None
