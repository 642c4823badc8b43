"""Which log continues which, by their identities and ids."""

from pgchannels.database.extent import Extent

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
