"""A process that publishes in transactions, one after another: `python -m tests.chaos.transactor PART`.

Some are rolled back, whole or to a savepoint; some are serializable, and some of those fail and are tried again.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import asyncpg

from pgchannels import PgChannelsError, Position
from tests.chaos.journal import TOPIC, Failed, Sent
from tests.chaos.process import Player, play

_PAUSE_SECONDS: Final = 0.02
_TIMEOUT_SECONDS: Final = 5
_COUNTER: Final = "CREATE TABLE IF NOT EXISTS public.counter (number bigint)"
_ISOLATIONS: Final = {"read_committed": 6, "repeatable_read": 2, "serializable": 2}
_LOOK_AGAIN_SECONDS: Final = 0.05
# The last two of asyncpg's: a connection that is lost between two steps of its own.
_LOST: Final = (
    *(KeyError, OSError, TimeoutError, PgChannelsError),
    *(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, AttributeError),
)

Message = tuple[str, int]  # the target, and its number there


class _RolledBack(Exception):
    """Ends a transaction, or what came after a savepoint."""


async def transact(player: Player) -> None:
    """Publish to topics."""
    player.report("ready")
    transactor = _Transactor(player)
    try:
        while not player.finished.is_set():
            await transactor.transact()
            await asyncio.sleep(player.random.expovariate(1 / _PAUSE_SECONDS))
    finally:
        transactor.close()


class _Transactor:
    """Plays transactions on one connection, and makes another when that is lost."""

    def __init__(self, player: Player) -> None:
        self._player = player
        self._server, self._url = player.random.choice([*player.part.urls.items()])
        pinned = player.part.options.get("pinned", {})
        self._topics = [topic for topic in player.part.topics if pinned.get(topic) == self._server or not pinned]
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._left: list[Message] = []  # in the transaction that is open
        self._is_committing = False

    async def transact(self) -> None:
        """Play one transaction, and write down what became of its messages."""
        self._left, self._is_committing = [], False
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                connection = await self._connected()
                await self._play(connection)
                positions = await self._positions(connection)
        except _RolledBack:
            self._fail(self._left, False, "rolled back")
        except _LOST as error:
            conflict = isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError)
            self._fail(self._left, self._is_committing and not conflict, repr(error))
            self.close()
        else:
            for (target, number), position in zip(self._left, positions, strict=True):
                self._player.journal.write(Sent(target, number, position))

    def close(self) -> None:
        """Drop the connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None:
            # As an application does whose connections may lead through a pooler.
            self._connection = await asyncpg.connect(self._url, statement_cache_size=0)
            with suppress(asyncpg.UniqueViolationError):  # another one creates it, too
                await self._connection.execute(_COUNTER)
        return self._connection

    async def _play(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        random = self._player.random
        [isolation] = random.choices(list(_ISOLATIONS), list(_ISOLATIONS.values()))
        transaction: Any = connection.transaction(isolation=isolation)  # type: ignore[arg-type]
        await transaction.start()
        for _ in range(random.randint(1, 4)):
            await self._publish(connection)
        if isolation == "serializable":  # so that two of them are a conflict
            await connection.execute("INSERT INTO public.counter SELECT count(*) FROM public.counter")
        if random.random() < 0.3:
            await self._undo(connection)
        if random.random() < 0.1:
            await asyncio.sleep(random.random())  # others publish meanwhile
        if random.random() < 0.3:
            await transaction.rollback()
            raise _RolledBack
        self._is_committing = True
        await transaction.commit()

    async def _undo(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        kept = len(self._left)
        with suppress(_RolledBack):
            async with connection.transaction():
                await self._publish(connection)
                raise _RolledBack
        self._fail(self._left[kept:], False, "rolled back to a savepoint")
        del self._left[kept:]

    async def _publish(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        sender, targets = self._player.sender, self._player.random.choices(self._topics, k=2)
        numbered = [(TOPIC + topic, sender.next_number(TOPIC + topic)) for topic in targets]
        self._left += numbered
        for target, number in numbered:
            await self._player.layer.publish(
                target.removeprefix(TOPIC),
                sender.payload(target, number, ""),
                key=self._key(target, number),
                connection=connection,
            )

    async def _positions(self, connection: "asyncpg.Connection[asyncpg.Record]") -> list[Position]:
        """Where the messages stand in the log, by their keys."""
        while await connection.fetchval("SELECT count(*) FROM pgchannels.undelivered"):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        keys = [self._key(target, number) for target, number in self._left]
        rows = await connection.fetch("SELECT key, id FROM pgchannels.message WHERE key = ANY ($1)", keys)
        found = {key: Position.from_id(message_id, self._server) for key, message_id in rows}
        return [found[key] for key in keys]  # a crash empties the log

    def _key(self, target: str, number: int) -> str:
        return f"{self._player.part.name} {target} {number}"

    def _fail(self, messages: Sequence[Message], may_have_been_sent: bool, error: str) -> None:
        for target, number in messages:
            self._player.journal.write(Failed(target, number, may_have_been_sent, error))


if __name__ == "__main__":
    play(transact)
