"""The ledger finds what it is there to find: every case by journals that were written by hand."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pgchannels import Position
from tests.chaos.balance import balance
from tests.chaos.journal import (
    MEMBER,
    Began,
    Changed,
    Changing,
    Crashed,
    Ended,
    Failed,
    GapTold,
    Journal,
    Key,
    Received,
    Record,
    Sending,
    Sent,
    read_journal,
)
from tests.chaos.ledger import LAST, UNTOLD, Account, Ending, Ledger

ROOM, OTHER, JOBS, CHANNEL = "topic:room", "topic:other", "queue:jobs", "channel:specific.x!y"
CROWD = "group:crowd"


def at(offset: int, *, epoch: int = 1) -> Position:
    return Position(epoch, offset)


def during(epoch: int) -> float:
    """A moment in an epoch; each ends with a crash, a little later."""
    return epoch * 10


def sent(*offsets: int, target: str = ROOM, epoch: int = 1) -> list[Record]:
    """Messages with numbers like the offsets of their positions."""
    return [record for offset in offsets for record in _sent(target, offset, at(offset, epoch=epoch))]


def _sent(target: str, number: int, position: Position) -> list[Record]:
    return [Sending(target, number), Sent(target, number, position, at=during(position.epoch))]


def began(*, target: str = ROOM, offset: int = 0, epoch: int = 1) -> Record:
    return Began("wide", target, at(offset, epoch=epoch), at=during(epoch))


def got(*offsets: int, target: str = ROOM, epoch: int = 1, sender: str = "publisher") -> list[Record]:
    """What a subscription got of `sent`."""
    position_of = partial(at, epoch=epoch)
    return [Received("wide", target, sender, offset, position_of(offset), at=during(epoch)) for offset in offsets]


def told(reason: str = "expired", *, count: int | None = None, epoch: int = 1) -> Record:
    return GapTold("wide", reason, count, at=during(epoch))


def consumed(*numbers: int) -> list[Record]:
    """What a consumer got of `sent(…, target=JOBS)`."""
    return [Received(JOBS, JOBS, "publisher", number) for number in numbers]


def account(process: str, *records: Record | Sequence[Record], ending: Ending = Ending.FINISHED) -> Account:
    flat = [record for part in records for record in (part if isinstance(part, Sequence) else [part])]
    return Account(process, flat, ending, may_hold=2)


def balanced(sending: Sequence[Record], *receivers: Account, is_durable: bool = False) -> Ledger:
    """The ledger of one publisher, of the run itself with its last message to the room, and of these receivers."""
    latest = max((record.position.epoch for record in sending if isinstance(record, Sent)), default=1)
    crashes = [Crashed(during(epoch) + 5, at=during(epoch) + 5) for epoch in range(1, latest)]
    accounts = [account("publisher", sending), account(LAST, crashes, sent(99, epoch=9)), *receivers]
    return balance(accounts, is_durable=is_durable)


def subscriber(
    *records: Record | Sequence[Record], ending: Ending = Ending.FINISHED, name: str = "subscriber"
) -> Account:
    """A subscriber to the room; one that finished has got the last message of all."""
    last = got(99, epoch=9, sender=LAST) if ending is Ending.FINISHED else []
    return account(name, began(), *records, last, ending=ending)


def offences(ledger: Ledger) -> tuple[int, int, int]:
    return len(ledger.unaccounted), len(ledger.duplicated), len(ledger.out_of_order)


def test_complete_run_is_balanced() -> None:
    ledger = balanced(sent(1, 2, 3), subscriber(got(1, 2, 3)), subscriber(got(1, 2, 3), name="other"))
    assert ledger.is_balanced
    assert (ledger.sent, ledger.delivered, ledger.lost.total()) == (4, 8, 0)


def test_missing_message_is_unaccounted_and_shown_with_its_neighbours() -> None:
    ledger = balanced(sent(1, 2, 3), subscriber(got(1, 3)))
    assert offences(ledger) == (1, 0, 0)
    assert ledger.unaccounted == [
        "publisher #2 to topic:room at 1-2 never came to subscriber/wide:"
        " between publisher #1 to topic:room and publisher #3 to topic:room"
    ]


def test_missing_message_at_the_end_is_unaccounted_unless_the_process_was_ended() -> None:
    assert offences(balanced(sent(1, 2, 3), subscriber(got(1, 2)))) == (1, 0, 0)
    for ending in (Ending.KILLED, Ending.TERMINATED):
        assert balanced(sent(1, 2, 3), subscriber(got(1, 2), ending=ending)).is_balanced


def test_missing_message_before_the_end_is_unaccounted_also_with_a_killed_process() -> None:
    assert offences(balanced(sent(1, 2, 3), subscriber(got(1, 3), ending=Ending.KILLED))) == (1, 0, 0)


def test_process_that_finished_without_the_last_message_of_all_misses_it() -> None:
    assert offences(balanced(sent(1), account("subscriber", began(), got(1)))) == (1, 0, 0)


def test_missing_message_at_the_end_is_not_due_to_a_receiver_that_ended() -> None:
    assert balanced(sent(1, 2, 3), account("subscriber", began(), got(1, 2), Ended("wide"))).is_balanced
    assert offences(balanced(sent(1, 2, 3), account("subscriber", began(), got(1, 3), Ended("wide")))) == (1, 0, 0)


def test_what_was_before_the_beginning_is_not_due() -> None:
    last = got(99, epoch=9, sender=LAST)
    assert balanced(sent(1, 2, 3), account("subscriber", began(offset=2), got(3), last)).is_balanced


def test_what_never_began_is_due_nothing_but_order() -> None:
    ledger = balanced(sent(1, 2, 3), account("subscriber", got(3, 1), ending=Ending.KILLED))
    assert offences(ledger) == (0, 0, 1)


def test_gap_without_a_count_covers_what_is_missing_where_it_was_told() -> None:
    ledger = balanced(sent(1, 2, 3, 4), subscriber(got(1), told(), got(4)))
    assert ledger.is_balanced
    assert ledger.lost == {"expired": 2}


@pytest.mark.parametrize("records", [[told(), *got(1, 3)], [*got(1, 3), told()]])
def test_gap_that_was_told_elsewhere_covers_nothing(records: list[Record]) -> None:
    assert offences(balanced(sent(1, 2, 3), subscriber(records))) == (1, 0, 0)


def test_gap_of_another_receiver_covers_nothing() -> None:
    ledger = balanced(sent(1, 2, 3), subscriber(got(1, 3)), subscriber(got(1), told(), got(3), name="other"))
    assert offences(ledger) == (1, 0, 0)


def test_gap_covers_what_is_missing_of_each_target_between_its_neighbours() -> None:
    others = got(1, target=OTHER), got(6, target=OTHER)
    sending = sent(2, 5) + sent(1, 4, 6, target=OTHER)
    ledger = balanced(sending, subscriber(began(target=OTHER), others[0], got(2), told(), others[1], got(5)))
    assert ledger.is_balanced
    assert ledger.lost == {"expired": 1}


def test_count_covers_that_many_and_no_more() -> None:
    ledger = balanced(sent(1, 2, 3, 4), subscriber(got(1), told(count=1), got(4)))
    assert offences(ledger) == (1, 0, 0)
    assert ledger.lost == {"expired": 1}


def test_count_beyond_what_is_missing_is_told_in_excess() -> None:
    ledger = balanced(sent(1, 2, 3), subscriber(got(1), told(count=5), got(3)))
    assert ledger.is_balanced
    assert ledger.told_in_excess == 4


def test_counts_are_matched_so_that_the_fewest_stay_uncovered() -> None:
    # The first gap could cover 2 (room) or 1 (other), the second only what is missing of the other.
    sending = sent(2, 3) + sent(1, 4, target=OTHER)
    receiving = [began(target=OTHER), told(count=1), *got(3), told("capacity", count=1), *got(4, target=OTHER)]
    ledger = balanced(sending, subscriber(receiving))
    assert ledger.is_balanced
    assert ledger.lost == {"expired": 1, "capacity": 1}


def test_gap_without_a_count_leaves_counts_for_what_it_cannot_cover() -> None:
    sending = sent(1, 2) + sent(3, 4, epoch=2)
    ledger = balanced(sending, subscriber(told(count=1), told("crash", epoch=2), got(4, epoch=2)))
    assert ledger.is_balanced
    assert ledger.lost == {"crash": 2, "expired": 1}


def test_gap_of_a_crash_covers_what_was_before_the_crash_only() -> None:
    sending = sent(1, 2) + sent(3, 4, epoch=2)
    ledger = balanced(sending, subscriber(got(1), told("crash", epoch=2), got(4, epoch=2)))
    assert offences(ledger) == (1, 0, 0)
    assert "at 2-3" in ledger.unaccounted[0]
    assert ledger.lost == {"crash": 1}


def test_gap_of_a_crash_does_not_cover_what_was_lost_in_the_next_one() -> None:
    sending = sent(1, 2) + sent(3, epoch=2) + sent(4, epoch=3)
    receiving = [*got(1), told("crash", epoch=2), *got(4, epoch=3)]
    assert "at 2-3" in balanced(sending, subscriber(receiving)).unaccounted[0]
    receiving.insert(-1, told("crash", epoch=3))
    assert balanced(sending, subscriber(receiving)).lost == {"crash": 2}


def test_gap_of_a_crash_may_stand_before_messages_that_were_received_before_the_crash() -> None:
    receiving = [*got(1), told("crash", epoch=2), *got(3)]
    assert balanced(sent(1, 2, 3) + sent(4, epoch=2), subscriber(receiving, got(4, epoch=2))).lost == {"crash": 1}


def test_message_that_came_twice_is_duplicated() -> None:
    assert offences(balanced(sent(1, 2), subscriber(got(1, 2, 1)))) == (0, 1, 0)


def test_message_behind_a_later_position_is_out_of_order() -> None:
    assert offences(balanced(sent(1, 2, 3), subscriber(got(2, 1, 3)))) == (0, 0, 1)


def test_message_behind_a_later_number_is_out_of_order_also_without_positions() -> None:
    sending: list[Record] = [Sending(CHANNEL, 1), Sending(CHANNEL, 2)]
    receiving = [Received("channel", CHANNEL, "publisher", number) for number in (2, 1)]
    assert offences(balanced(sending, account("subscriber", receiving))) == (0, 0, 1)


def test_message_whose_sender_gave_up_may_come_behind_a_later_number() -> None:
    sending: list[Record] = [Sending(ROOM, 1), Failed(ROOM, 1, True, "no answer"), *sent(2)]
    receiving = [*got(2), Received("wide", ROOM, "publisher", 1, at(3), at=during(1))]
    assert offences(balanced(sending, subscriber(receiving))) == (0, 0, 0)


def test_numbers_of_one_sender_grow_with_positions_or_are_out_of_order() -> None:
    sending: list[Record] = [Sending(ROOM, 1), Sent(ROOM, 1, at(2)), Sending(ROOM, 2), Sent(ROOM, 2, at(1))]
    receiving = [Received("wide", ROOM, "publisher", 2, at(1)), Received("wide", ROOM, "publisher", 1, at(2))]
    assert offences(balanced(sending, subscriber(receiving))) == (0, 0, 1)


def test_channel_is_ordered_by_the_positions_that_senders_were_told() -> None:
    receiving = [Received("channel", CHANNEL, sender, 7) for sender in ("two", "one")]
    senders = [account(name, Sending(CHANNEL, 7), Sent(CHANNEL, 7, at(i))) for i, name in enumerate(("one", "two"))]
    assert offences(balance([*senders, account("subscriber", receiving)])) == (0, 0, 1)


@pytest.mark.parametrize("outcome", [[], [Failed(ROOM, 2, True, "lost")]])
def test_unknown_message_is_due_to_all_once_anybody_got_it(outcome: list[Record]) -> None:
    sending = [*sent(1), Sending(ROOM, 2), *outcome, *sent(3)]
    ledger = balanced(sending, subscriber(got(1, 3)))
    assert ledger.is_balanced
    assert (ledger.sent, ledger.unknown) == (3, 1)
    ledger = balanced(sending, subscriber(got(1, 3)), subscriber(got(1, 2, 3), name="other"))
    assert offences(ledger) == (1, 0, 0)


def test_message_that_was_not_sent_must_not_come() -> None:
    sending: list[Record] = [Sending(ROOM, 1), Failed(ROOM, 1, False, "full")]
    assert balanced(sending, subscriber()).not_sent == 1
    assert offences(balanced(sending, subscriber(got(1)))) == (1, 0, 0)
    assert offences(balanced([], subscriber(got(1)))) == (1, 0, 0)


def test_message_at_another_position_than_its_sender_was_told_is_unaccounted() -> None:
    sending: list[Record] = [Sending(ROOM, 1), Sent(ROOM, 1, at(5))]
    assert "but stands at 1-5" in balanced(sending, subscriber(got(1))).unaccounted[0]


def test_queue_owes_each_message_to_one_consumer() -> None:
    sending = sent(1, 2, 3, target=JOBS)
    assert balanced(sending, account("one", consumed(1, 3)), account("two", consumed(2))).is_balanced
    assert offences(balanced(sending, account("one", consumed(1)), account("two", consumed(2)))) == (1, 0, 0)
    assert offences(balanced(sending, account("one", consumed(1, 2, 3)), account("two", consumed(2)))) == (0, 1, 0)
    assert offences(balanced(sending, account("one", consumed(1, 2, 3, 2)))) == (0, 1, 0)


@pytest.mark.parametrize(("ending", "held", "unaccounted"), [(Ending.KILLED, 2, 1), (Ending.TERMINATED, 0, 3)])
def test_killed_consumer_may_take_with_it_what_it_could_hold(ending: Ending, held: int, unaccounted: int) -> None:
    consumers = account("one", consumed(1), ending=ending), account("two", consumed(2))
    ledger = balanced(sent(1, 2, 3, 4, 5, target=JOBS), *consumers)
    assert ledger.with_a_killed_process == held
    assert offences(ledger) == (unaccounted, 0, 0)


def test_gap_of_a_crash_that_one_consumer_was_told_covers_what_the_queue_lost_in_it() -> None:
    sending = sent(1, 2, 3, target=JOBS) + sent(4, 5, target=JOBS, epoch=2)
    one = account("one", consumed(1), GapTold(JOBS, "crash", None, at=during(2)), consumed(4))
    ledger = balanced(sending, one, account("two", consumed(5)))
    assert ledger.is_balanced
    assert ledger.lost == {"crash": 2}


def test_crash_that_no_consumer_lived_to_see_is_told_to_nobody() -> None:
    sending = sent(1, 2, 3, target=JOBS) + sent(4, 5, target=JOBS, epoch=2)
    ledger = balanced(sending, account("one", consumed(1), ending=Ending.TERMINATED), account("two", consumed(4, 5)))
    assert ledger.is_balanced
    assert ledger.lost == {UNTOLD: 2}
    assert offences(balanced(sending, account("one", consumed(1, 4, 5)))) == (2, 0, 0)


def test_crash_takes_nothing_from_a_durable_log() -> None:
    sending = sent(1, 2) + sent(3, epoch=2)
    complete = subscriber(got(1, 2), got(3, epoch=2))
    assert balanced(sending, complete, is_durable=True).is_balanced
    without_a_word = subscriber(got(1), got(3, epoch=2))
    assert offences(balanced(sending, without_a_word, is_durable=True)) == (1, 0, 0)
    with_a_gap = subscriber(got(1), told("crash", epoch=2), got(3, epoch=2))
    assert offences(balanced(sending, with_a_gap, is_durable=True)) == (2, 0, 0)


def test_counted_gap_of_any_consumer_covers_that_many_of_the_queue() -> None:
    consumers = account("one", consumed(1)), account("two", GapTold(JOBS, "expired", 2), consumed(4))
    ledger = balanced(sent(1, 2, 3, 4, target=JOBS), *consumers)
    assert ledger.is_balanced
    assert ledger.lost == {"expired": 2}


def changed(number: int, *, adds: bool, at: float, until: float | None, is_own: bool = False) -> list[Record]:
    """The channel is added to the crowd, or discarded; None: nobody was told that it was."""
    change = Changing(number, CROWD, CHANNEL.removeprefix("channel:"), adds, is_own, at=at)
    return [change] if until is None else [change, Changed(number, at=until)]


def crowd(number: int, *, at: float, until: float, epoch: int = 1) -> list[Record]:
    """A message to the crowd."""
    return [Sending(CROWD, number, at=at), Sent(CROWD, number, Position(epoch, number), at=until)]


def member(*events: int | GapTold, at: float = 9) -> Account:
    """What the channel got of the crowd."""
    name = MEMBER + CHANNEL.removeprefix("channel:")
    records = [
        Received(name, CROWD, "publisher", event, at=at) if isinstance(event, int) else replace(event, receiver=name)
        for event in events
    ]
    return account("member", Began(name, CHANNEL, Position(1, 0)), records)


ADDED = changed(0, adds=True, at=1, until=2)
DISCARDED = changed(1, adds=False, at=7, until=8)


def test_certain_member_is_owed_what_was_sent_to_its_group_meanwhile() -> None:
    sending = [*ADDED, *crowd(1, at=3, until=4), *crowd(2, at=5, until=6), *DISCARDED]
    assert balanced(sending, member(1, 2)).is_balanced
    assert offences(balanced(sending, member(1))) == (1, 0, 0)
    assert offences(balanced(sending, member(2))) == (1, 0, 0)


@pytest.mark.parametrize("times", [(1.5, 3), (6, 7.5), (9, 9.5)])
def test_member_is_owed_nothing_that_was_sent_before_or_after_or_on_the_way(times: tuple[float, float]) -> None:
    began, ended = times
    assert balanced([*ADDED, *crowd(1, at=began, until=ended), *DISCARDED], member()).is_balanced


def test_removal_that_did_not_return_may_take_effect_later() -> None:
    removal = changed(1, adds=False, at=0.5, until=None)
    assert balanced([*removal, *ADDED, *crowd(1, at=3, until=4)], member()).is_balanced


def test_addition_after_a_removal_makes_a_certain_member_again() -> None:
    again = changed(2, adds=True, at=10, until=11)
    sending = [*ADDED, *DISCARDED, *again, *crowd(1, at=12, until=13)]
    assert offences(balanced(sending, member())) == (1, 0, 0)
    assert balanced(sending, member(1, at=14)).is_balanced


def test_message_to_a_group_that_the_channel_had_left_must_not_come() -> None:
    sending = [*ADDED, *DISCARDED, *crowd(1, at=9, until=10)]
    assert offences(balanced(sending, member(1, at=11))) == (1, 0, 0)
    assert offences(balanced(crowd(1, at=9, until=10), member(1, at=11))) == (1, 0, 0)


@pytest.mark.parametrize(("is_own", "owed"), [(False, 0), (True, 1)])
def test_addition_by_another_process_may_go_with_a_crash(is_own: bool, owed: int) -> None:
    added = changed(0, adds=True, at=1, until=2, is_own=is_own)
    crash = account("crash", Crashed(3, at=3))
    ledger = balanced([*added, *crowd(1, at=4, until=5, epoch=2)], member(), crash)
    assert offences(ledger) == (owed, 0, 0)


def test_addition_that_returned_as_the_server_was_crashed_may_go_with_it() -> None:
    added = changed(0, adds=True, at=3.1, until=3.2)
    crash = account("crash", Crashed(3, at=3.5))
    assert offences(balanced([*added, *crowd(1, at=4, until=5, epoch=2)], member(), crash)) == (0, 0, 0)


def test_membership_of_which_something_was_received_outlasts_a_crash() -> None:
    sending = [*ADDED, *crowd(1, at=2.5, until=2.6), *crowd(2, at=4, until=5, epoch=2)]
    crash = account("crash", Crashed(3, at=3))
    assert offences(balanced(sending, member(1, at=2.7), crash)) == (1, 0, 0)


def test_gap_of_a_crash_covers_what_a_certain_member_missed_where_it_was_told() -> None:
    sending = [*ADDED, *crowd(1, at=3, until=4), *crowd(2, at=5, until=6), *crowd(3, at=9, until=10, epoch=2)]
    crash, gap = account("crash", Crashed(8, at=8)), GapTold("", "crash", None, at=8.5)
    assert balanced(sending, member(1, gap, 3, at=11), crash).lost == {"crash": 1}
    assert offences(balanced(sending, member(gap, 1, 3, at=11), crash)) == (1, 0, 0)


@pytest.mark.parametrize(("crashed", "unaccounted"), [("a", 0), ("b", 1)])
def test_gap_of_a_crash_covers_only_what_was_on_the_server_that_crashed(crashed: str, unaccounted: int) -> None:
    first, lost, last = (Position(epoch, number, "a") for epoch, number in ((1, 1), (1, 2), (2, 3)))
    sending = [
        record for number, position in enumerate((first, lost, last)) for record in _sent(ROOM, number, position)
    ]
    receipts = [Received("wide", ROOM, "publisher", number, at, at=30) for number, at in ((0, first), (2, last))]
    told = GapTold("wide", "crash", None, at=30)
    one = account("one", Began("wide", ROOM, first), receipts[0], told, receipts[1], ending=Ending.TERMINATED)
    crash = account("crash", Crashed(18, crashed, at=18))
    assert offences(balance([account("publisher", sending), one, crash])) == (unaccounted, 0, 0)


def test_direct_message_to_a_channel_and_one_to_a_group_on_another_server_have_no_order() -> None:
    name, elsewhere = MEMBER + CHANNEL.removeprefix("channel:"), Position(1, 2, "elsewhere")
    direct: list[Record] = [Sending(CHANNEL, 2, at=5), Sent(CHANNEL, 2, elsewhere, at=6)]
    receipts = [Received(name, CHANNEL, "publisher", 2, at=9), Received(name, CROWD, "publisher", 1, at=9)]
    sending = [*ADDED, *crowd(1, at=3, until=4), *direct]
    assert balanced(sending, account("member", receipts)).is_balanced


def test_direct_message_that_overtook_an_earlier_one_to_the_group_is_out_of_order() -> None:
    direct: list[Record] = [Sending(CHANNEL, 2, at=5), Sent(CHANNEL, 2, at(2), at=6)]
    name = MEMBER + CHANNEL.removeprefix("channel:")
    receipts = [Received(name, CHANNEL, "publisher", 2, at=9), Received(name, CROWD, "publisher", 1, at=9)]
    sending = [*ADDED, *crowd(1, at=3, until=4), *direct]
    assert offences(balanced(sending, account("member", receipts))) == (0, 0, 1)
    assert balanced(sending, account("member", receipts[::-1])).is_balanced


def test_last_lines_name_the_figures_that_must_be_zero() -> None:
    lines = balanced(sent(1, 2, 3), subscriber(got(2, 1, 1))).lines()
    assert [line.split()[-1] for line in lines if line.startswith(("unacc", "dupl", "out of"))] == ["1", "1", "1"]


def test_journal_is_read_as_written_without_a_half_written_end(tmp_path: Path) -> None:
    records = [
        *sent(1),
        Failed(ROOM, 2, True, "lost"),
        began(),
        *got(1),
        *consumed(2),
        told(count=3),
        told(),
        Ended("wide"),
    ]
    journal = Journal(tmp_path / "journal", began=0)
    for record in records:
        journal.write(record)
    journal.close()
    with (tmp_path / "journal").open("a") as file:
        file.write('{"record": "Sent", "tar')
    assert read_journal(tmp_path / "journal") == records
    assert Key(ROOM, "publisher", 1) == got(1)[0].key  # type: ignore[union-attr]
