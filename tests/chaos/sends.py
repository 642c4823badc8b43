"""What became of each send, by the journals of all processes."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pgchannels import Position
from tests.chaos.journal import CLAIMED, QUEUE, Failed, Key, Received, Record, Sending, Sent, Took
from tests.chaos.ledger import LAST, Account, Ledger


class Sends:
    """Every message that anybody tried to send; `positions` of those that are known to be in the log."""

    def __init__(self, accounts: Sequence[Account]) -> None:
        self.positions: dict[Key, Position] = {}
        self.began_at: dict[Key, float] = {}
        self.ended_at: dict[Key, float] = {}  # of those that were sent by the word of their sender
        self.given_up: set[Key] = set()  # by their senders: if they come, then perhaps behind later ones
        self._outcomes: dict[Key, str] = {}
        self._by_target: dict[str, list[tuple[Position, Key]]] = defaultdict(list)
        for account in accounts:
            for record in account.records:
                self._note(account.process, record)
        self._contradictions = list(self._compare(accounts))
        for key, position in self.positions.items():
            self._by_target[key.target].append((position, key))
        for messages in self._by_target.values():
            messages.sort()
        self._by_beginning: dict[str, list[tuple[float, Key]]] = defaultdict(list)
        for key in self.ended_at:
            self._by_beginning[key.target].append((self.began_at[key], key))
        for begun in self._by_beginning.values():
            begun.sort()

    @property
    def queues(self) -> list[str]:
        """The work queues that have messages."""
        return [target for target in self._by_target if target.startswith(QUEUE)]

    @property
    def claimed_queues(self) -> list[str]:
        """The work queues whose messages are acknowledged."""
        return [target for target in self._by_target if target.startswith(CLAIMED)]

    @property
    def latest_epoch(self) -> int:
        """The epoch in which the run ended."""
        return max((position.epoch for position in self.positions.values()), default=0)

    def to(self, target: str) -> list[tuple[Position, Key]]:
        """The messages to a target whose positions are known, in the order of these."""
        return self._by_target[target]

    def between(self, target: str, after: Position, until: Position) -> list[tuple[Position, Key]]:
        """Those of `to` with positions after one and up to another."""
        messages = self._by_target[target]
        first, end = (bisect_right(messages, position, key=_position_of) for position in (after, until))
        return messages[first:end]

    def sent_within(self, target: str, after: float, until: float) -> Iterator[Key]:
        """The messages to a target whose sends began after a moment, and ended well up to another."""
        messages = self._by_beginning[target]
        for index in range(bisect_right(messages, after, key=_beginning_of), len(messages)):
            began, key = messages[index]
            if began > until:
                break
            if self.ended_at[key] <= until:
                yield key

    def position_of(self, receipt: Received) -> Position | None:
        """Where a received message stands, as far as anybody was told."""
        return receipt.position or self.positions.get(receipt.key)

    def end_of(self, target: str) -> Position | None:
        """The position of the first message to a target from `LAST`: it has got all others before."""
        return min((position for position, key in self._by_target[target] if key.sender == LAST), default=None)

    def enter(self, ledger: Ledger) -> None:
        """Put the figures of the senders into a ledger."""
        counts = Counter(self._outcomes.values())
        ledger.sent, ledger.unknown, ledger.not_sent = counts["sent"], counts["unknown"], counts["not sent"]
        ledger.unaccounted += self._contradictions

    def _note(self, sender: str, record: Record) -> None:
        match record:
            case Sending(target, number):
                self.began_at[Key(target, sender, number)] = record.at
                self._outcomes[Key(target, sender, number)] = "unknown"
            case Sent(target, number, position):
                self._outcomes[Key(target, sender, number)] = "sent"
                self.positions[Key(target, sender, number)] = position
                self.ended_at[Key(target, sender, number)] = record.at
            case Failed(target, number, may_have_been_sent):
                self._outcomes[Key(target, sender, number)] = "unknown" if may_have_been_sent else "not sent"
                self.given_up.add(Key(target, sender, number))

    def _compare(self, accounts: Sequence[Account]) -> Iterable[str]:
        for account in accounts:
            for receipt in account.records:
                if isinstance(receipt, Received | Took):
                    yield from self._compare_receipt(f"{account.process}/{receipt.receiver}", receipt)

    def _compare_receipt(self, receiver: str, receipt: Received | Took) -> Iterable[str]:
        outcome = self._outcomes.get(receipt.key, "never sent")
        if outcome in {"never sent", "not sent"}:
            yield f"{receipt.key} was received by {receiver}, but {outcome}"
        if isinstance(receipt, Received) and receipt.position is not None:
            known = self.positions.setdefault(receipt.key, receipt.position)
            if known != receipt.position:
                yield f"{receipt.key} was received by {receiver} at {receipt.position}, but stands at {known}"


def _position_of(message: tuple[Position, Key]) -> Position:
    return message[0]


def _beginning_of(message: tuple[float, Key]) -> float:
    return message[0]
