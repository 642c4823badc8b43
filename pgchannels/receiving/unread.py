"""Whether the log may have something that a node which polls has not read yet."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the log has shown.

    All transactions before `oldest_running` had ended when the look began. Those from `next_transaction` on had not
    begun then. It saw `last_id` after that.
    """

    last_id: int
    oldest_running: int
    next_transaction: int


class Unread:
    """Tells from looks at the log, in their order, whether it must be read.

    An id is given out before its message is committed. So ids that have been read over may still appear; not any more
    once all transactions that ran when the ids were first seen have ended. A transaction has its number before its
    first id.
    """

    def __init__(self) -> None:
        self._last_id = -1
        self._until_transaction: int | None = None  # those with ids up to the last one have lesser numbers
        self._is_everything_read = False

    def is_left(self, look: Look) -> bool:
        """Take a look; return whether the log must be read after it, even if the one before it was."""
        if look.last_id != self._last_id:
            self._last_id, self._until_transaction, self._is_everything_read = look.last_id, None, False
            return True
        if self._is_everything_read:
            return False
        if self._until_transaction is None:
            self._until_transaction = look.next_transaction
        self._is_everything_read = look.oldest_running >= self._until_transaction
        return True

    def forget(self) -> None:
        """Have everything read again."""
        self._last_id = -1
