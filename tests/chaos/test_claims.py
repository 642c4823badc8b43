"""The ledger finds what it is there to find of claimed work."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from tests.chaos.journal import CLAIMED, GapTold, Record, Sending, Took, Worked
from tests.chaos.ledger import UNTOLD, Account, Ending, Ledger
from tests.chaos.test_ledger import account, at, balanced, during, offences, sent

TASKS = CLAIMED + "tasks"


def tried(
    number: int,
    *,
    is_done: bool | None = True,
    attempts: int = 1,
    offset: int | None = None,
    epoch: int = 1,
    when: float = 11,
    asked: float | None = None,
    hidden: float | None = None,
    is_dead: bool = False,
) -> list[Record]:
    """An attempt at a job that was `sent`, at the place where it was put or at another; None: nobody lived to say."""
    position = at(number if offset is None else offset, epoch=epoch)
    job = TASKS, "publisher", number, attempts
    took = Took(*job, position, when if asked is None else asked, hidden, is_dead, at=when)
    return [took] if is_done is None else [took, Worked(*job, is_done, at=when)]


def claimer(name: str, *attempts: Sequence[Record], ending: Ending = Ending.FINISHED) -> Account:
    return account(name, *attempts, ending=ending)


def of_jobs(*claimers: Account, count: int = 3, is_durable: bool = False) -> Ledger:
    """The ledger of so many jobs, and of those who worked on them."""
    return balanced(sent(*range(1, count + 1), target=TASKS), *claimers, is_durable=is_durable)


def test_job_is_owed_to_one_worker_and_done_once_or_more() -> None:
    ledger = of_jobs(claimer("one", tried(1), tried(3)), claimer("two", tried(2)))
    assert ledger.is_balanced
    assert (ledger.taken, ledger.done) == (3, 3)
    assert offences(of_jobs(claimer("one", tried(1), tried(2)))) == (1, 0, 0)


@pytest.mark.parametrize("ending", Ending)
def test_job_that_was_begun_and_never_done_is_missing_also_with_those_who_were_killed(ending: Ending) -> None:
    unfinished = claimer("one", tried(1), tried(2), tried(3, is_done=None), ending=ending)
    assert "never done" in of_jobs(unfinished).unaccounted[0]
    failed = claimer("one", tried(1), tried(2), tried(3, is_done=False), ending=ending)
    assert offences(of_jobs(failed)) == (1, 0, 0)


def test_job_whose_send_has_an_unknown_outcome_is_due_once_anybody_tried_it() -> None:
    sending: list[Record] = [Sending(TASKS, 1), *sent(2, target=TASKS)]
    assert balanced(sending, claimer("one", tried(2))).is_balanced
    assert offences(balanced(sending, claimer("one", tried(1, is_done=False), tried(2)))) == (1, 0, 0)
    assert "never sent" in balanced(sending, claimer("one", tried(2), tried(3))).unaccounted[0]


def test_job_that_failed_comes_again_with_one_more_attempt() -> None:
    first = claimer("one", tried(1, is_done=False, when=11), tried(2))
    assert of_jobs(first, claimer("two", tried(1, attempts=2, offset=5, when=12)), count=2).is_balanced
    again = claimer("two", tried(1, attempts=1, offset=5, when=12))
    assert offences(of_jobs(first, again, count=2)) == (0, 1, 0)


def test_job_that_was_done_does_not_come_again() -> None:
    again = claimer("two", tried(1, attempts=2, offset=5, when=12))
    assert offences(of_jobs(claimer("one", tried(1)), again, count=1)) == (0, 1, 0)
    assert offences(of_jobs(claimer("one", tried(1, is_done=None)), again, count=1)) == (0, 1, 0)


@pytest.mark.parametrize("is_done", [True, None])
def test_job_of_a_process_that_ended_comes_again_and_not_before_that(is_done: bool | None) -> None:
    ended = claimer("one", tried(1, is_done=is_done, when=12), ending=Ending.KILLED)
    assert of_jobs(ended, claimer("two", tried(1, attempts=2, offset=5, when=13)), count=1).is_balanced
    later = claimer("one", tried(1, is_done=is_done, when=12), tried(2, when=14), ending=Ending.KILLED)
    assert offences(of_jobs(later, claimer("two", tried(1, attempts=2, offset=5, when=13)), count=2)) == (0, 1, 0)


def test_hidden_job_comes_again_when_its_time_has_passed_since_it_was_asked_for() -> None:
    first = claimer("one", tried(1, when=12.5, asked=11, hidden=2))
    assert of_jobs(first, claimer("two", tried(1, attempts=2, offset=5, when=13)), count=1).is_balanced
    early = claimer("two", tried(1, attempts=2, offset=5, when=12.9))
    assert offences(of_jobs(first, early, count=1)) == (0, 1, 0)


def test_attempts_that_nobody_made_are_those_of_processes_that_ended() -> None:
    second = claimer("two", tried(1, attempts=2, when=12))
    assert "attempts" in of_jobs(second, count=1).unaccounted[0]
    gone = claimer("one", tried(2), ending=Ending.KILLED)
    assert of_jobs(gone, second, count=2).is_balanced
    third = claimer("two", tried(1, attempts=3, when=12))
    assert offences(of_jobs(gone, third, count=2)) == (1, 0, 0)


@pytest.mark.parametrize(("hidden", "offence"), [(None, 1), (2.0, 0)])
def test_attempts_do_not_decrease_unless_a_hidden_job_was_noted_late(hidden: float | None, offence: int) -> None:
    late = claimer("one", tried(1, when=14, asked=11, hidden=hidden))
    assert offences(of_jobs(late, claimer("two", tried(1, attempts=2, offset=5, when=13)), count=1)) == (0, 0, offence)


def test_each_worker_gets_jobs_in_the_order_in_which_they_were_put_into_the_queue() -> None:
    assert offences(of_jobs(claimer("one", tried(2), tried(1), tried(3)))) == (0, 0, 1)
    given_back = tried(1, is_done=False), tried(2), tried(3), tried(1, attempts=2, offset=9)
    assert of_jobs(claimer("one", *given_back)).is_balanced
    apart = claimer("one", tried(2), tried(1, asked=10, hidden=9), tried(3))
    assert of_jobs(apart).is_balanced


@pytest.mark.parametrize(("asked", "offence"), [(11.5, 0), (12.5, 1)])
def test_nobody_gets_an_earlier_job_by_a_call_after_another_got_a_later_one(asked: float, offence: int) -> None:
    first = claimer("one", tried(2, when=12))
    assert offences(of_jobs(first, claimer("two", tried(1, when=13, asked=asked, hidden=9)), count=2)) == (
        0,
        0,
        offence,
    )


def test_dead_letters_have_an_order_of_their_own() -> None:
    failed, dead = tried(1, is_done=False), partial(tried, 1, attempts=2, offset=20, is_dead=True)
    others = claimer("two", tried(2, when=12, asked=11.5, hidden=9))
    assert of_jobs(claimer("one", failed, dead()), others, count=2).is_balanced
    assert of_jobs(claimer("one", failed, dead()), others, count=2).dead == 1
    assert offences(of_jobs(claimer("one", failed, dead(is_done=False)), others, count=2)) == (1, 0, 0)


def test_gap_of_a_crash_covers_jobs_that_were_lost_in_it_unless_the_log_is_durable() -> None:
    sending = sent(1, 2, 3, target=TASKS) + sent(4, target=TASKS, epoch=2)
    attempts = tried(1), tried(3, is_done=False), tried(4, epoch=2, when=21)
    told = GapTold(TASKS, "crash", None, at=during(2))
    ledger = balanced(sending, claimer("one", *attempts, [told]))
    assert ledger.is_balanced
    assert ledger.lost == {"crash": 2}
    assert offences(balanced(sending, claimer("one", *attempts))) == (2, 0, 0)
    assert offences(balanced(sending, claimer("one", *attempts), is_durable=True)) == (2, 0, 0)
    killed = claimer("one", *attempts[:2], ending=Ending.KILLED)
    assert balanced(sending, killed, claimer("two", attempts[2])).lost == {UNTOLD: 2}


def test_jobs_do_not_expire_and_nobody_may_be_told_that_they_have() -> None:
    told = GapTold(TASKS, "expired", 1, at=during(1))
    assert offences(of_jobs(claimer("one", tried(1), tried(2), [told]))) == (2, 0, 0)
    assert of_jobs(claimer("one", tried(1), tried(2), tried(3), [replace(told, count=None)])).is_balanced
