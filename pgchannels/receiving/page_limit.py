"""How far the next page of a reading goes."""

from collections.abc import Sequence
from typing import Final

from pgchannels.receiving.arrival import GREATEST_ID

_GROWTH: Final = 4


class PageLimit:
    """Limits the ids of each page of a reading, until a page reaches the end and is not full.

    A page is the next thousand messages of many addresses, for which the database reads up to a thousand of each. Each
    page reaches as far in ids as the one before, so that most of these are in it, and not read again for later pages.
    """

    def __init__(self, end: int = GREATEST_ID) -> None:
        self.until: int = end
        self._end = end
        self.is_complete: bool = False
        self._step = 0

    def note_page(self, ids: Sequence[int], *, is_full: bool, last_id: int) -> None:
        """Take the ids of a page in their order, whether there may be more, and the greatest id of the log.

        After a full page, everything up to its last id is read; after any other, everything up to `until`.
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
            self.until = self._end  # including what is sent meanwhile
