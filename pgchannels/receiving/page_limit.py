"""How far the next page of a reading goes."""

from collections.abc import Sequence
from typing import Final

from pgchannels.receiving.log import GREATEST_ID

_GROWTH: Final = 4


class PageLimit:
    """Up to which id each page of a reading goes, until one is not full that went to the end.

    A page is the next thousand messages of many addresses. For it the database reads up to a thousand of each; so that
    most of them come with this page, not again with each of the next ones, it goes as far as the page before did.
    """

    def __init__(self, end: int = GREATEST_ID) -> None:
        self.until: int = end
        self._end = end
        self.is_complete: bool = False
        self._step = 0

    def note_page(self, ids: Sequence[int], *, is_full: bool, last_id: int) -> None:
        """Take the ids of a page in their order, whether there may be more, and the greatest id of the log.

        With a full page all up to its last id is read; with another one all up to `until`.
        """
        if is_full:
            self._step = ids[-1] - ids[0] + 1
            self.until = ids[-1] + self._step
        elif self.until == self._end:
            self.is_complete = True
        else:
            self._step *= _GROWTH
            self.until += self._step
        if self.until >= min(last_id, self._end):
            self.until = self._end  # also what is sent meanwhile
