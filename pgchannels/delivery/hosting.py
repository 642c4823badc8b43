"""Tells the database which addresses this node hosts."""

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

from pgchannels.database.connections import Connections, driver_text
from pgchannels.database.failures import is_connection_failure, is_database_failure
from pgchannels.database.statements.nodes import host, unhost
from pgchannels.database.tables import Schema
from pgchannels.delivery.catch_up import CatchUp
from pgchannels.delivery.retry import repeat
from pgchannels.delivery.router import Router
from pgchannels.errors import DatabaseRefused, DatabaseUnavailable

_TIMEOUT_SECONDS: Final = 30


class Hosting:
    """One statement at a time for all who ask meanwhile, so that hosting and unhosting never overtake each other."""

    def __init__(
        self,
        connections: Connections,
        schema: Schema,
        node: UUID,
        router: Router,
        catch_up: CatchUp,
        *,
        on_unknown: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._schema = schema
        self._host_text = driver_text(host(schema))
        self._node = node
        self._router = router
        self._catch_up = catch_up
        self._on_unknown = on_unknown
        self._hosted: set[str] = set()
        self._released: set[str] = set()  # at the last heartbeat
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._work = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def ensure(self, address: str) -> None:
        """Return once every message published from now on comes to this node.

        :raises DatabaseUnavailable: the database could not be asked in time.
        """
        if address in self._hosted:
            return
        hosted = self.want(address)
        await asyncio.wait([hosted], timeout=_TIMEOUT_SECONDS)
        if not hosted.done():
            raise DatabaseUnavailable(f"could not subscribe to {address} within {_TIMEOUT_SECONDS} seconds")
        hosted.result()

    def want(self, address: str) -> "asyncio.Future[None]":
        """Begin to host an address; the future tells when."""
        future = self._wanted.get(address)
        if future is None:
            future = self._wanted[address] = asyncio.get_running_loop().create_future()
            self._work.set()
        return future

    async def run(self) -> None:
        """Host what is wanted, for ever."""
        await repeat(self._host_wanted, what_failed="could not host addresses")

    def adopt(self, address: str) -> None:
        """Take over an address that another node has subscribed this one to."""
        if address in self._released:
            self.want(address)  # the release may have come after that subscription, and undone it
        else:
            self._hosted.add(address)

    async def host_again(self) -> None:
        """Host all addresses of the router anew: the database may have forgotten this node."""
        await self._host(self._router.addresses())

    async def verify(self, count: int) -> None:
        """Host all addresses anew if the database knows fewer than this node; it says that it knows `count`."""
        if count < len(self._hosted):
            await self.host_again()

    async def release_unused(self) -> None:
        """Stop hosting what nobody here receives any more."""
        async with self._one_at_a_time:
            self._released = set(self._router.take_unused())
            self._hosted -= self._released
            if self._released:
                await self._connections.run(unhost(self._schema, self._node, self._released))

    def close(self, error: Exception) -> None:
        """End every wait with an error."""
        self._settle(list(self._wanted), error)

    async def _host_wanted(self) -> None:
        await self._work.wait()
        wanted = list(self._wanted)
        try:
            await self._host(wanted)
        except Exception as error:
            if is_connection_failure(error) or not is_database_failure(error):
                raise
            self._settle(wanted, DatabaseRefused(f"the database refused to subscribe: {error}"))
        else:
            self._settle(wanted)
        if not self._wanted:
            self._work.clear()

    async def _host(self, addresses: list[str]) -> None:
        with self._catch_up.holding():
            try:
                async with self._one_at_a_time:
                    [(position,)] = await self._connections.fetch(self._host_text, self._node, addresses)
            finally:
                # The database may have left these out until now, and may tell of them again although this call failed.
                if any(map(self._router.is_read, addresses)):
                    self._catch_up.read_missed()
            if position is None:
                self._on_unknown()
                raise ConnectionError("the database has removed this node: it must register again")
            for address in addresses:
                self._router.begin(address, position)
            self._hosted.update(addresses)

    def _settle(self, addresses: list[str], error: Exception | None = None) -> None:
        for address in addresses:
            future = self._wanted.pop(address)
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # marks it as seen: perhaps nobody waits any more
