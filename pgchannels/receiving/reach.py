"""How far the next page of a reading goes."""

from collections.abc import Sequence
from typing import Final

from pgchannels.database.statements.reading import PAGE_ROWS

_MANY: Final = PAGE_ROWS // 2  # a page of fewer does not say how densely they lie
_GROWTH: Final = 4


class Reach:
    """Up to which id each page of a reading goes, until all up to `last_id` is read.

    A page is the next thousand messages of many addresses. For it the database reads up to a thousand of each; so that
    most of them come with this page, not again with each of the next ones, it goes as far as the page before did.
    """

    def __init__(self, last_id: int) -> None:
        self.until: int = last_id
        self.is_complete: bool = False
        self._last_id = last_id
        self._step = 0

    def note_page(self, ids: Sequence[int]) -> None:
        """Take the ids of a page in their order: all up to the last of them is read, with none all up to `until`."""
        if len(ids) > _MANY:
            self._step = ids[-1] - ids[0] + 1
            self.until = min(ids[-1] + self._step, self._last_id)
        elif not ids and self.until < self._last_id:
            self._step *= _GROWTH
            self.until = min(self.until + self._step, self._last_id)
        elif not ids:
            self.is_complete = True
