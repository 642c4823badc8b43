"""Which epochs of the log had ended when, by the journals of all processes."""

from collections.abc import Sequence

from tests.chaos.journal import Began, Crashed, Received, Sent, Took
from tests.chaos.ledger import Account


class Epochs:
    """An epoch has ended with the first crash of the server after anybody knew of a message in it."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._known_since: dict[int, float] = {}
        self._crashes: list[Crashed] = []
        for account in accounts:
            for record in account.records:
                if isinstance(record, Crashed):
                    self._crashes.append(record)
                elif isinstance(record, Sent | Received | Took | Began) and record.position is not None:
                    self._know(record.position.epoch, record.at)

    def ended_by(self, moment: float) -> set[int]:
        """The epochs that had ended by a moment."""
        crashes = [crash for crash in self._crashes if crash.began <= moment]
        return {epoch for epoch, since in self._known_since.items() if any(since <= crash.at for crash in crashes)}

    def _know(self, epoch: int, at: float) -> None:
        self._known_since[epoch] = min(at, self._known_since.get(epoch, at))
