"""Connections that need no session: each statement is a transaction of its own, with its own settings.

A pooler in transaction mode gives each transaction another session. There, a setting outlives its transaction only to
surprise somebody else, and a prepared statement is in a session that the next one does not get.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeGuard

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement

from pgchannels.database.failures import NO_TRANSACTIONS, Standby, TransactionsRefused
from pgchannels.database.pooler import PoolableConnection

_MOST_STATEMENTS: Final = 200
_BEGIN: Final = "BEGIN"


class SessionlessConnection(PoolableConnection):
    """Runs each statement between BEGIN and COMMIT: three round trips, and one more for the first time.

    `settings` is the text of what makes the settings that hold until the end of each transaction, also of one that
    SQLAlchemy begins. The server ends what runs on a connection that ends: see `client_connection_check_interval`.
    """

    is_pooled: bool = True

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)  # the driver calls it
        # Or it would set `jit` in the session, to ask about a type.
        self._server_caps = getattr(self, "_server_caps")._replace(jit=False)  # noqa: B009
        self.settings: str = ""
        self._statements: dict[str, PreparedStatement[asyncpg.Record]] = {}
        self._is_in_one = False
        self.is_unfinished: bool = False  # a transaction was begun, and its end is unknown

    @asynccontextmanager
    async def one_transaction(self) -> AsyncIterator[None]:
        """Run all statements of the block in one transaction.

        If it is cancelled, or the connection is lost, the transaction may still be open: leave the connection.
        """
        self.is_unfinished = True
        await self._begin()
        self._is_in_one = True
        try:
            yield
        except asyncpg.PostgresError:
            self._is_in_one = False
            if not self.is_closed():
                await super().execute("ROLLBACK")
                self.is_unfinished = False
            raise
        finally:
            self._is_in_one = False
        await super().execute("COMMIT")
        self.is_unfinished = False

    async def execute(self, query: str, *args: Any, **named: Any) -> str:
        """Run statements, with the settings if they begin a transaction: so the driver begins all of its own."""
        if not query.startswith(_BEGIN):
            return await super().execute(query, *args, **named)
        try:
            return await super().execute(f"{query.rstrip(';')} READ WRITE; {self.settings}", *args, **named)
        except asyncpg.FeatureNotSupportedError as error:  # a standby allows only transactions that read
            raise Standby from error

    async def fetch(self, query: str, *args: Any) -> "list[asyncpg.Record]":  # type: ignore[override]
        """Run a statement in a transaction of its own, or in that of the block."""
        if self._is_in_one:
            return await self._fetch(query, *args)
        async with self.one_transaction():
            return await self._fetch(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> "asyncpg.Record | None":  # type: ignore[override]
        """Run a statement as `fetch` does, and return its first row."""
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    async def _begin(self) -> None:
        try:
            await self.execute(f"{_BEGIN} ISOLATION LEVEL READ COMMITTED")
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if NO_TRANSACTIONS in str(error):
                raise TransactionsRefused from error
            raise

    async def _fetch(self, query: str, *args: Any) -> "list[asyncpg.Record]":
        # Without a name, the driver parses the statement again each time, in the same round trip: the transaction may
        # have got a session that never saw it, or one that knows another statement by the same name.
        try:
            if query not in self._statements:
                if len(self._statements) >= _MOST_STATEMENTS:
                    self._statements.clear()
                self._statements[query] = await self.prepare(query, name="")
            return await self._statements[query].fetch(*args)
        except BaseException:
            self._statements.pop(query, None)  # its types may have changed
            raise


def has_no_session(connection: object) -> TypeGuard[SessionlessConnection]:
    """Whether a connection is of this class; `isinstance` says so of every connection of the driver."""
    return SessionlessConnection in type(connection).__mro__
