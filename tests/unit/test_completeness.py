"""Which log continues which, by their identities and ids."""

from pgchannels import Gap, GapReason
from pgchannels.database.extent import Extent
from pgchannels.receiving.mailbox import Mailbox, WhenFull
from pgchannels.receiving.replay import Cursor

A, B, C, OTHER = 1, 2, 3, 9


def extent(*identities: int, began_at: int = 1_000) -> Extent:
    """A log that had these identities in turn: the first from 1000 to 1999, the second from 3000 to 3999, and so on."""
    spans = [(identity, 1_000 + 2_000 * n, 1_999 + 2_000 * n) for n, identity in enumerate(identities)]
    *former, (now, begin, end) = spans
    return Extent(now, begin, former, began_at, began_at, began_at, end)


def test_log_continues_the_one_that_it_is_or_was() -> None:
    assert extent(A).continues(A, 1_500)
    assert extent(A, B).continues(A, 1_500)
    assert extent(A, B, C).continues(A, 1_500)
    assert extent(A, B, C).continues(B, 3_500)


def test_log_that_was_copied_before_something_was_seen_does_not_continue_it() -> None:
    assert not extent(A, B).continues(A, 2_500)
    assert not extent(A, C).continues(B, 1_500)
    assert not extent(C).continues(A, 1_500)


def test_position_between_two_identities_is_of_another_log() -> None:
    assert extent(A, B).leaves_out(2_500)
    assert not any(map(extent(A, B).leaves_out, (1_000, 1_999, 3_000, 3_500)))
    assert not extent(A).leaves_out(2_500)


def test_new_log_is_read_from_its_beginning() -> None:
    assert extent(OTHER, began_at=1_000).begin_after(A, 500) == 1_000


def test_copy_is_read_from_where_it_was_made() -> None:
    assert extent(A, B, C).begin_after(A, 2_500) == 3_000
    assert extent(OTHER, C).begin_after(A, 2_500) == 3_000


def recovered(*, last_id: int) -> Extent:
    """A durable log after a crash: its former identity, A from 1000, has messages up to an id."""
    former = [(A, 1_000, last_id), (~A, 2_999, 2_999)]
    return Extent(B, 3_000, former, 1_000, 1_000, 1_000, 3_999)


def test_recovered_log_continues_what_was_seen_of_it_whatever_it_has_given_besides() -> None:
    assert recovered(last_id=1_500).continues(A, 1_500, heard_of=1_999)
    assert not recovered(last_id=1_500).continues(A, 1_501)
    assert not extent(A, B).continues(A, 1_500, heard_of=2_500)


def test_position_that_a_recovered_log_has_lost_is_of_another_log() -> None:
    assert recovered(last_id=1_500).leaves_out(1_501)
    assert not any(map(recovered(last_id=1_500).leaves_out, (1_000, 1_500, 3_000)))
    assert recovered(last_id=1_500).begin_after(A, 1_501) == 2_999


def partly_recovered() -> Extent:
    """A log after a crash that took what was fast, up to 1200, and left what was durable, up to 1500."""
    return Extent(B, 3_000, [(A, 1_000, 999), (~A, 1_200, 1_500)], 1_000, 1_200, 1_200, 3_999)


def test_what_a_crash_left_of_a_log_that_was_partly_durable_is_not_read_twice() -> None:
    partly = partly_recovered()
    assert not partly.continues(A, 1_400)
    assert partly.begin_after(A, 1_400) == 1_200
    assert partly.still_has(A, 1_400)
    assert not partly.still_has(A, 1_200)
    assert not recovered(last_id=1_500).still_has(A, 1_400)


def test_replay_goes_on_in_what_a_crash_left_and_reads_nothing_twice() -> None:
    mailbox = Mailbox(capacity=1, when_full=WhenFull.FAIL, on_lost=lambda _: None)
    cursor = Cursor("subscription", mailbox, {"read far": 1_400, "read little": 1_100})
    assert cursor.meet(extent(A), last_id=1_999)
    assert not cursor.meet(partly_recovered(), last_id=3_999)
    assert cursor.positions == {"read far": 1_400, "read little": 1_200}
    assert list(cursor.items) == [Gap(GapReason.CRASH, None)]
