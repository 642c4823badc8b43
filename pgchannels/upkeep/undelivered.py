"""Delivers messages of transactions that could not do so themselves."""

from pgchannels.database.chore import Chore
from pgchannels.database.connections import Connections
from pgchannels.database.statements.sending import deliver_undelivered


class Undelivered:
    """Delivers what serializable and repeatable-read transactions have committed; the first node to ask does it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._chore = Chore(self._deliver, what_failed="could not deliver the messages of a transaction")

    def deliver_soon(self) -> None:
        """Deliver, without waiting for it."""
        self._chore.ask()

    async def run(self) -> None:
        """Deliver whenever there is something, forever."""
        await self._chore.run()

    async def _deliver(self) -> None:
        await self._connections.ask(deliver_undelivered)
