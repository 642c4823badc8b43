"""Who is in which group, as far as those were told who added and discarded channels.

A channel is a *certain* member from the moment when adding it has returned, in whatever process, until somebody begins
to discard it or to flush. Whatever is sent to the group from its beginning to its end meanwhile is due to the channel,
as if it had been sent to that itself. It is a *stranger* where discarding it had returned and nobody has begun to add
it since: nothing that is sent to the group from then on may come.

An addition or a removal that failed may take effect at any later time, all the same. A crash takes
with it what was not obeyed yet. So a membership outlasts a crash for certain if the node of the channel knew of it: it
added the channel itself, or the channel has received something from the group since.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from tests.faults.machine.model import Fate, Flush, Model, Reception, Send


@dataclass(slots=True, eq=False)
class Change:
    """A channel is added to a group, or discarded."""

    by: str
    group: str
    channel: str
    is_addition: bool
    is_own: bool  # by the layer that the channel belongs to
    began: int
    ended: int | None = None  # when it was done; None as long as it may take effect

    def __str__(self) -> str:
        verb = "adds" if self.is_addition else "discards"
        return f"{self.by} {verb} {self.channel}, group {self.group}, until {self.ended or 'whenever'}"


class Memberships:
    """All changes of an example."""

    def __init__(self, model: Model) -> None:
        self.changes: list[Change] = []
        self._model = model

    def begin(self, by: str, group: str, channel: str, *, is_addition: bool, is_own: bool) -> Change:
        """Note a change that is about to be made."""
        change = Change(by, group, channel, is_addition, is_own, self._model.now())
        self.changes.append(change)
        return change

    def may_get(self, send: Send, reception: Reception, moment: int) -> bool:
        """Whether it may be that what was sent comes to a receiver at a moment."""
        if send.target == reception.target:
            return True
        additions = [change for change in self._additions(send.target, reception) if change.began < moment]
        removals = [removal for removal in self._removals(send.target, reception) if _end(removal) < send.started]
        return bool(additions) and all(self._is_undone(removal, additions) for removal in removals)

    def is_due(self, send: Send, reception: Reception) -> bool:
        """Whether what was sent must come to the channel of a receiver."""
        if send.fate is not Fate.SENT or send.may_be_flushed or reception.began is None:
            return False
        if send.target == reception.target:
            return send.started > reception.began
        return self.reason(send, reception) is not None

    def reason(self, send: Send, reception: Reception) -> Change | None:
        """By which addition to the group what was sent is due to the channel of a receiver."""
        additions = self._additions(send.target, reception)
        return next((addition for addition in additions if self._holds(addition, send, reception)), None)

    def of(self, reception: Reception) -> Iterator[Change]:
        """All changes of the memberships of a channel."""
        return (change for change in self.changes if change.channel == reception.target)

    def _additions(self, group: str, reception: Reception) -> list[Change]:
        return [change for change in self._of(group, reception) if change.is_addition]

    def _removals(self, group: str, reception: Reception) -> "list[Change | Flush]":
        return [*(change for change in self._of(group, reception) if not change.is_addition), *self._model.flushes]

    def _of(self, group: str, reception: Reception) -> Iterator[Change]:
        return (change for change in self.of(reception) if change.group == group)

    def _is_undone(self, removal: "Change | Flush", additions: list[Change]) -> bool:
        is_added_again = any(_end(addition) > removal.began for addition in additions)
        return is_added_again or any(crash > removal.began for crash in self._model.crashes)

    def _holds(self, addition: Change, send: Send, reception: Reception) -> bool:
        assert send.ended is not None
        if _end(addition) > send.started:
            return False
        for removal in self._removals(addition.group, reception):
            if _end(removal) > addition.began and removal.began < send.ended:
                return False
        crashes = [crash for crash in self._model.crashes if addition.began < crash < send.ended]
        return all(_is_known(addition, reception, crash) for crash in crashes)


def _is_known(addition: Change, reception: Reception, moment: int) -> bool:
    """Whether the node of the channel has obeyed an addition before a moment."""
    if addition.is_own and _end(addition) < moment:
        return True
    return any(
        isinstance(event, Send) and event.target == addition.group and event.started > _end(addition)
        for event, at in zip(reception.events, reception.moments, strict=True)
        if at < moment
    )


def _end(removal: "Change | Flush") -> float:
    return inf if removal.ended is None else removal.ended
