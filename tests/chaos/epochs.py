"""Which epochs of the log had ended when, by the journals of all processes."""

from collections.abc import Sequence

from pgchannels import Position
from tests.chaos.journal import Began, Crashed, Received, Sent, Took
from tests.chaos.ledger import Account

Epoch = tuple[str, int]  # a server, and one of its epochs


def epoch_of(position: Position) -> Epoch:
    """The epoch of the log in which a position is."""
    return position.server, position.epoch


class Epochs:
    """An epoch has ended with the first crash of its server after anybody knew of a message in it."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._known_since: dict[Epoch, float] = {}
        self._crashes: list[Crashed] = []
        for account in accounts:
            for record in account.records:
                if isinstance(record, Crashed):
                    self._crashes.append(record)
                elif isinstance(record, Sent | Received | Took | Began) and record.position is not None:
                    self._know(epoch_of(record.position), record.at)

    def ended_by(self, moment: float) -> set[Epoch]:
        """The epochs that had ended by a moment."""
        crashes = [crash for crash in self._crashes if crash.began <= moment]
        return {
            (server, epoch)
            for (server, epoch), since in self._known_since.items()
            if any(since <= crash.at and server == crash.server for crash in crashes)
        }

    def _know(self, epoch: Epoch, at: float) -> None:
        self._known_since[epoch] = min(at, self._known_since.get(epoch, at))
