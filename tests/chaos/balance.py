"""Balances the journals of all processes of a run."""

from collections.abc import Sequence

from tests.chaos.claims import balance_claims
from tests.chaos.epochs import Epochs
from tests.chaos.gaps import Missing
from tests.chaos.journal import CLAIMED, MEMBER, QUEUE, Began, Ended, GapTold, Received, Record
from tests.chaos.ledger import CRASH, Account, Ending, Ledger
from tests.chaos.memberships import Member, Memberships
from tests.chaos.queues import balance_queue
from tests.chaos.sends import Sends
from tests.chaos.streams import balance_stream


def balance(accounts: Sequence[Account], *, is_durable: bool = False) -> Ledger:
    """The ledger of all that took part in a run; if the log was durable, a crash ended no epoch."""
    ledger = Ledger()
    sends, epochs, memberships = Sends(accounts), Epochs([] if is_durable else accounts), Memberships(accounts)
    sends.enter(ledger)
    for account in accounts:
        for receiver, records in _by_receiver(account.records).items():
            if not receiver.startswith((QUEUE, CLAIMED)):
                is_finished = account.ending is Ending.FINISHED and Ended(receiver) not in records
                name, missing = f"{account.process}/{receiver}", list[Missing]()
                if receiver.startswith(MEMBER):
                    member = Member(sends, memberships, receiver.removeprefix(MEMBER), records)
                    member.require_nothing_of_others_and_order(ledger, name)
                    missing += member.missing(is_finished=is_finished)
                balance_stream(ledger, sends, epochs, name, records, is_finished=is_finished, also_missing=missing)
    for queue in sends.queues:
        balance_queue(ledger, sends, epochs, queue, accounts)
    for queue in sends.claimed_queues:
        balance_claims(ledger, sends, epochs, queue, accounts)
    if is_durable:
        ledger.unaccounted += _told_of_a_crash(accounts)
    return ledger


def _told_of_a_crash(accounts: Sequence[Account]) -> list[str]:
    return [
        f"{account.process}/{record.receiver} was told of a crash that can have taken nothing"
        for account in accounts
        for record in account.records
        if isinstance(record, GapTold) and record.reason == CRASH
    ]


def _by_receiver(records: Sequence[Record]) -> dict[str, list[Record]]:
    receivers: dict[str, list[Record]] = {}
    for record in records:
        if isinstance(record, Began | Received | GapTold | Ended):
            receivers.setdefault(record.receiver, []).append(record)
    return receivers
