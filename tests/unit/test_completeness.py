"""What a node knows of the log's completeness."""

from pgchannels import GapReason, Position
from pgchannels.receiving.catch_up import Completeness


def position(epoch: int, offset: int) -> int:
    """An id of the log."""
    return Position(epoch, offset).to_id()


def opened(last_id: int) -> Completeness:
    """Of a node that was opened when this was the last id."""
    completeness = Completeness()
    assert completeness.compare(position(1, 0), position(1, 0), last_id) is None
    completeness.note_read(now=0)
    return completeness


def test_what_left_the_log_before_the_node_was_opened_is_no_gap() -> None:
    assert opened(position(1, 100)).compare(position(1, 0), position(1, 100), position(1, 300)) is None


def test_what_was_read_and_left_the_log_later_is_no_gap() -> None:
    completeness = opened(position(1, 100))
    for seconds in (10, 20, 30):
        assert completeness.compare(position(1, 0), position(1, 100), position(1, 100 + 10 * seconds)) is None
        completeness.note_read(now=seconds)
    assert completeness.compare(position(1, 0), position(1, 300), position(1, 900)) is None


def test_what_left_the_log_unread_is_a_gap_told_once() -> None:
    completeness = opened(position(1, 100))
    assert completeness.compare(position(1, 0), position(1, 200), position(1, 300)) is GapReason.EXPIRED
    assert completeness.compare(position(1, 0), position(1, 200), position(1, 300)) is None


def test_id_that_was_taken_just_before_the_reading_is_not_thought_to_be_read() -> None:
    completeness = opened(position(1, 100))
    assert completeness.compare(position(1, 0), position(1, 0), position(1, 200)) is None
    completeness.note_read(now=0.5)  # 200 may not have been committed yet
    assert completeness.compare(position(1, 0), position(1, 200), position(1, 900)) is GapReason.EXPIRED


def test_new_epoch_is_a_crash() -> None:
    assert opened(position(1, 100)).compare(position(2, 0), position(2, 0), position(2, 5)) is GapReason.CRASH


def test_log_that_began_anew_in_the_same_epoch_is_a_crash() -> None:
    assert opened(position(1, 100)).compare(position(1, 500), position(1, 500), position(1, 900)) is GapReason.CRASH
