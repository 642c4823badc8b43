"""Readings of many addresses by pages: everything once and in order, and nothing much read in vain."""

from bisect import bisect_right
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pgchannels.receiving.page_limit import PageLimit

PAGE = 1_000


class Log:
    """The ids of messages by address; a page as `messages_after` makes it, which counts what it reads."""

    def __init__(self, addresses: list[list[int]]) -> None:
        self.addresses = addresses
        self.positions = [0] * len(addresses)
        self.messages_read = 0
        self.pages = 0

    def page(self, up_to: int) -> list[int]:
        found = []
        for ids, position in zip(self.addresses, self.positions, strict=True):
            begin = bisect_right(ids, position)
            found += ids[begin : min(bisect_right(ids, up_to), begin + PAGE)]
        self.messages_read += len(found)
        self.pages += 1
        return sorted(found)[:PAGE]

    def deliver(self, page: list[int]) -> None:
        taken = set(page)
        for number, ids in enumerate(self.addresses):
            self.positions[number] = max([id_ for id_ in ids if id_ in taken], default=self.positions[number])

    def read_all(self, last_id: int) -> list[int]:
        limit, read = PageLimit(), list[int]()
        while not limit.is_complete:
            page = self.page(limit.until)
            self.deliver(page)
            limit.note_page(page, is_full=len(page) == PAGE, last_id=last_id)
            read += page
        return read


ids = st.lists(st.integers(1, 10**9), unique=True, max_size=4_000)


@given(ids, st.integers(1, 5), st.randoms(use_true_random=False))
def test_everything_is_read_once_and_in_order(sent: list[int], addresses: int, random: Random) -> None:
    by_address: list[list[int]] = [[] for _ in range(addresses)]
    for id_ in sorted(sent):
        random.choice(by_address).append(id_)
    assert Log(by_address).read_all(10**9) == sorted(sent)


def test_many_even_topics_are_read_little_more_than_once() -> None:
    topics = 400
    log = Log([list(range(1 + number, 40_000, topics)) for number in range(topics)])
    assert log.read_all(40_000) == list(range(1, 40_000))
    assert log.messages_read < 40_000 + 2 * 40_000  # the first page knows nothing yet
    assert log.pages < 60


def test_burst_behind_a_long_silence_takes_few_pages() -> None:
    log = Log([list(range(1, 2_000)), list(range(10**9, 10**9 + 5_000))])
    assert len(log.read_all(2 * 10**9)) == 1_999 + 5_000
    assert log.pages < 40
