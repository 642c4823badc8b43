"""Layers that add channels of each other to groups, discard them, and flush; what they do may be under way for long."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pgchannels import PgChannelsError
from pgchannels.django import PostgresChannelLayer
from tests.faults.machine.memberships import Change, Memberships
from tests.faults.machine.model import Model

GROUPS: Final = ["crowd", "team"]


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a layer has a channel of its own: another one whenever the layer is opened again."""

    layer_name: str
    number: int

    def __str__(self) -> str:
        return f"{self.layer_name}/{self.number}"


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody adds a channel to a group, somebody sends to both, and it is discarded again."""

    by: str
    sender: str
    group: str
    seat: Seat
    count: int
    size: int
    stays: bool  # it is added and sent to, and not discarded

    def __str__(self) -> str:
        end = "stays" if self.stays else "goes"
        return f"{self.seat} in {self.group} by {self.by}, {self.count} of {self.size} bytes by {self.sender}, {end}"


class Groups:
    """The layers as those who change memberships, and what they may be told.

    :param is_excused: whether a layer is cut off, so that changes of the memberships of its channels may fail.
    """

    def __init__(
        self,
        model: Model,
        layers: Mapping[str, PostgresChannelLayer],
        *,
        is_excused: Callable[[str], bool],
    ) -> None:
        self.memberships = Memberships(model)
        self._model = model
        self._layers = layers
        self._is_excused = is_excused
        self._changing: set[asyncio.Task[None]] = set()
        self._closings: dict[str, list[int]] = defaultdict(list)

    def begin(self, by: str, group: str, seat: Seat, channel: str, *, is_addition: bool) -> "asyncio.Task[None]":
        """Add or discard a channel; the task is done when that is done, or has failed."""
        is_own = by == seat.layer_name
        change = self.memberships.begin(by, group, channel, is_addition=is_addition, is_own=is_own)
        layer = self._layers[by]
        verb = layer.group_add if is_addition else layer.group_discard
        changing = asyncio.create_task(self._change(change, seat, verb), name=f"{change}")
        self._changing.add(changing)
        return changing

    def note_closing(self, layer_name: str) -> None:
        """Note that a layer begins to be closed, or has been: what is under way may fail until then."""
        self._closings[layer_name].append(self._model.now())

    async def flush(self, by: str) -> None:
        """Delete everything."""
        flush = self._model.begin_flush()
        await self._layers[by].flush()
        flush.ended = self._model.now()

    async def finish(self) -> None:
        """Return when every change is made, or has failed."""
        changing, self._changing = self._changing, set()
        await asyncio.gather(*changing)

    async def _change(self, change: Change, seat: Seat, verb: Callable[[str, str], Awaitable[None]]) -> None:
        was_excused = self._is_excused(seat.layer_name)
        try:
            await verb(change.group, change.channel)
        except PgChannelsError as error:
            if not (was_excused or self._may_fail(change, seat)):
                error.add_note(f"{change}")
                raise
        else:
            change.ended = self._model.now()

    def _may_fail(self, change: Change, seat: Seat) -> bool:
        # After a crash whoever changes it may be back sooner than the node of the channel, which nobody finds then.
        closings = [*self._closings[change.by], *self._closings[seat.layer_name]]
        is_closing = any(moment > change.began for moment in closings)
        return is_closing or self._is_excused(seat.layer_name) or bool(self._model.crashes)
