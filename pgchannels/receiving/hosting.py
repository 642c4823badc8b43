"""Tells the database which addresses this node hosts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain, islice
from typing import Final
from uuid import UUID

from pgchannels.database.connections import Connections
from pgchannels.database.failures import is_database_failure, is_passing
from pgchannels.database.statements.nodes import host
from pgchannels.database.wording import advice, in_words
from pgchannels.errors import DatabaseRefused, DatabaseUnavailable, copy_of
from pgchannels.receiving.router import Router

_AT_ONCE: Final = 5_000  # senders to these addresses wait for the call, some ten milliseconds


class Hosting:
    """Makes this node's subscriptions in the database match the router's addresses, one call at a time.

    A change is requested again until a call with it is answered. A call that removes something carries a version, so
    that it does nothing if it arrives late: another call may have added the same address again.

    :param work: set when there is something to do: `reconcile` must be called.
    :param beat_due: set when the database does not know this node: it must register again.
    :param timeout_seconds: how long a caller waits for the position of an address.
    """

    def __init__(
        self,
        connections: Connections,
        node: UUID,
        router: Router,
        *,
        work: asyncio.Event,
        beat_due: asyncio.Event,
        timeout_seconds: float,
    ) -> None:
        self._connections = connections
        self._node = node
        self._router = router
        self._work = work
        self._beat_due = beat_due
        self._timeout_seconds = timeout_seconds
        self._hosted: set[str] = set()
        self._to_add: dict[str, bool] = {}  # and whether each gets a mark
        self._to_remove: set[str] = set()
        self._waiting: dict[str, list[asyncio.Future[int]]] = {}
        self._version = 0  # of the last answered call
        self._last_version = 0  # of the last call made
        self._has_version_to_tell = True  # the database has no version of this node, or too low a one

    @property
    def is_behind(self) -> bool:
        """Whether there is something to do."""
        return bool(self._to_add or self._to_remove or self._waiting)

    def hosts(self, address: str) -> bool:
        """Whether this node is notified of every message to an address."""
        return address in self._hosted

    def want(self, address: str, *, is_marked: bool = False) -> None:
        """Begin to host an address; with `is_marked`, the database notifies this node of its position."""
        self._to_add[address] = is_marked or self._to_add.get(address, False)
        self._work.set()

    async def positions_of(self, addresses: Sequence[str], *, is_patient: bool = False) -> Sequence[int]:
        """Host addresses and return their positions; every message sent to one from now on has a greater id.

        :param is_patient: wait for as long as it takes.
        :raises DatabaseUnavailable: the database did not answer in time.
        :raises DatabaseRefused: it answered with an error.
        """
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[int]] = [loop.create_future() for _ in addresses]
        for address, answer in zip(addresses, answers, strict=True):
            self._waiting.setdefault(address, []).append(answer)
            if address not in self._hosted:
                self._to_add.setdefault(address, False)
        self._work.set()
        try:
            async with asyncio.timeout(None if is_patient else self._timeout_seconds):
                positions = await asyncio.gather(*answers, return_exceptions=True)
        except TimeoutError:
            text = f"could not subscribe to {', '.join(addresses):.200} within {self._timeout_seconds:g} seconds"
            raise DatabaseUnavailable(f"{self._connections.place} did not answer: {text}") from None
        for position in positions:
            if isinstance(position, BaseException):
                raise position
        return [position for position in positions if isinstance(position, int)]

    def is_known(self, version: int) -> bool:
        """Whether the database should have this version of what the node hosts; if not, it has forgotten the node."""
        return version in {self._version, self._last_version} and version != 0

    def forget(self) -> None:
        """Host all addresses of the router again: the database has forgotten this node."""
        self._version = 0
        self._hosted.clear()
        self._to_remove.clear()
        self._has_version_to_tell = True
        self._to_add = dict.fromkeys(self._router.addresses(), False) | self._to_add
        self._work.set()

    def release_unused(self) -> None:
        """Stop hosting addresses that nobody here receives any more."""
        unused = set(self._router.take_unused())
        # A new receiver must request its address again: the call that removes it may be under way.
        self._hosted -= unused
        self._to_remove |= unused
        self._work.set()

    async def reconcile(self, look_at_identity: Callable[[int], Awaitable[None]]) -> None:
        """Make one call to the database.

        :param look_at_identity: called with the identity of the log before its positions are used.
        :raises CONNECTION_FAILURES: the call may or may not have had an effect; the next one repeats it.
        """
        self._to_remove = {address for address in self._to_remove if not self._router.has(address)}
        added, removed = list(islice(self._to_add, _AT_ONCE)), list(islice(self._to_remove, _AT_ONCE))
        asked = [address for address in self._waiting if address in self._hosted]
        waiting = {address: self._waiting.pop(address, []) for address in dict.fromkeys(chain(added, asked))}
        marked = {address for address in added if self._to_add.pop(address)}
        try:
            position = await self._host(added, removed, look_at_identity, is_marked=bool(marked))
        except BaseException as error:
            if not _is_refusal(error) or not any(waiting.values()):
                self._ask_again(waiting, marked)
                raise
            self._refuse(waiting, f"{self._connections.place} refused to subscribe: {in_words(error)}{advice(error)}")
            return
        self._to_remove -= set(removed)
        for address, answered in waiting.items():
            self._router.host(address, position, is_marked=address in marked)
            if self._router.has(address):
                self._hosted.add(address)
            for future in answered:
                if not future.done():
                    future.set_result(position)

    def close(self, error: Exception) -> None:
        """End every wait with an error."""
        waiting, self._waiting = self._waiting, {}
        for future in chain.from_iterable(waiting.values()):
            if not future.done():
                future.set_exception(copy_of(error))

    async def _host(
        self,
        added: list[str],
        removed: list[str],
        look_at_identity: Callable[[int], Awaitable[None]],
        *,
        is_marked: bool,
    ) -> int:
        version = None
        if removed or self._has_version_to_tell:
            version = self._last_version = self._last_version + 1
            self._has_version_to_tell = True  # until it is answered: the next call must outdate this one
        rows = await self._connections.fetch(host, self._node, self._version, version, added, removed, is_marked)
        identity, position = rows[0]
        if position is None:
            self._beat_due.set()
            raise ConnectionError("the database has removed this node: it registers again")
        if version is not None:
            self._version, self._has_version_to_tell = version, False
        await look_at_identity(identity)
        found: int = position
        return found

    def _ask_again(self, waiting: "dict[str, list[asyncio.Future[int]]]", marked: set[str]) -> None:
        for address, answered in waiting.items():
            if address not in self._hosted:
                self.want(address, is_marked=address in marked)
            self._waiting.setdefault(address, []).extend(answered)

    def _refuse(self, waiting: "dict[str, list[asyncio.Future[int]]]", text: str) -> None:
        for address, answered in waiting.items():
            if not answered and address not in self._hosted:
                self.want(address, is_marked=True)  # nobody waits: request it again
            for future in answered:
                if not future.done():
                    future.set_exception(DatabaseRefused(text))


def _is_refusal(error: BaseException) -> bool:
    return is_database_failure(error) and not is_passing(error)
