"""Balances the journals of all processes of a run."""

from collections.abc import Sequence

from tests.chaos.epochs import Epochs
from tests.chaos.journal import QUEUE, Began, Ended, GapTold, Received, Record
from tests.chaos.ledger import Account, Ending, Ledger
from tests.chaos.queues import balance_queue
from tests.chaos.sends import Sends
from tests.chaos.streams import balance_stream


def balance(accounts: Sequence[Account]) -> Ledger:
    """The ledger of all that took part in a run."""
    ledger = Ledger()
    sends, epochs = Sends(accounts), Epochs(accounts)
    sends.enter(ledger)
    for account in accounts:
        for receiver, records in _by_receiver(account.records).items():
            if not receiver.startswith(QUEUE):
                is_finished = account.ending is Ending.FINISHED and Ended(receiver) not in records
                balance_stream(ledger, sends, epochs, f"{account.process}/{receiver}", records, is_finished=is_finished)
    for queue in sends.queues:
        balance_queue(ledger, sends, epochs, queue, accounts)
    return ledger


def _by_receiver(records: Sequence[Record]) -> dict[str, list[Record]]:
    receivers: dict[str, list[Record]] = {}
    for record in records:
        if isinstance(record, Began | Received | GapTold | Ended):
            receivers.setdefault(record.receiver, []).append(record)
    return receivers
