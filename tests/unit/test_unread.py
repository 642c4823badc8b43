"""When a node that polls must read the log: a model of transactions that take ids, wait and commit."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pgchannels.receiving.unread import Look, Unread


@dataclass
class Server:
    """Gives out transactions and ids; what is committed can be read, what is not cannot."""

    next_transaction: int = 1
    last_ended: int = 0
    last_id: int = 0
    running: dict[int, list[int]] = field(default_factory=dict)  # transactions with their ids
    committed: set[int] = field(default_factory=set)

    def begin(self) -> None:
        self.running[self.next_transaction] = []
        self.next_transaction += 1

    def take_id(self, transaction: int) -> None:
        self.last_id += 1
        self.running[transaction].append(self.last_id)

    def end(self, transaction: int, *, is_commit: bool) -> None:
        ids = self.running.pop(transaction)
        self.last_ended = max(self.last_ended, transaction)
        self.committed |= set(ids) if is_commit else set()

    def oldest(self) -> int:
        """As a snapshot has it, which knows only of the transactions up to the last that has ended."""
        return min([one for one in self.running if one <= self.last_ended], default=self.last_ended + 1)


@given(st.data())
def test_whatever_is_committed_is_read_by_the_next_look_after_it(data: st.DataObject) -> None:
    server, unread, read = Server(), Unread(), set[int]()
    for _ in range(data.draw(st.integers(0, 40))):
        match data.draw(st.sampled_from(["begin", "take", "take", "commit", "roll back", "look", "look"])):
            case "begin":
                server.begin()
            case "take" if server.running:
                server.take_id(data.draw(st.sampled_from(sorted(server.running))))
            case "commit" | "roll back" as end if server.running:
                server.end(data.draw(st.sampled_from(sorted(server.running))), is_commit=end == "commit")
            case "look":
                oldest, following = server.oldest(), server.next_transaction
                if data.draw(st.booleans()):  # between the snapshot and the sequence
                    server.begin()
                    server.take_id(data.draw(st.sampled_from(sorted(server.running))))
                committed = set(server.committed)  # at the latest when the look is answered
                if unread.is_left(Look(server.last_id, oldest, following)):
                    read |= server.committed
                assert committed <= read


def test_log_at_rest_is_not_read_again() -> None:
    unread, look = Unread(), Look(7, oldest_running=5, next_transaction=5)
    assert [unread.is_left(look) for _ in range(4)] == [True, True, False, False]


def test_log_is_read_until_the_transactions_have_ended_that_may_add_to_it() -> None:
    unread = Unread()
    busy, over = Look(7, oldest_running=3, next_transaction=5), Look(7, oldest_running=5, next_transaction=9)
    assert [unread.is_left(look) for look in (busy, busy, busy, over, over)] == [True, True, True, True, False]
