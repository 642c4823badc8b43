"""Where the faults of a run happen."""

import asyncio
import math
import random
import signal
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import asyncpg

from tests.chaos.crew import Crew
from tests.chaos.faults import LANES, Fault, Kind, faults
from tests.chaos.journal import Crashed, Journal
from tests.chaos.ledger import Ending
from tests.chaos.proxies import Proxies
from tests.chaos.servers import Servers
from tests.support.proxy import Direction

HOLDER: Final = "chaos holder"  # the application_name of a session that no fault is to end
_FROZEN: Final[dict[Kind, tuple[Direction, ...]]] = {
    Kind.FREEZE: ("to_server", "to_client"),
    Kind.FREEZE_REQUESTS: ("to_server",),
    Kind.FREEZE_ANSWERS: ("to_client",),
}


class Scene:
    """Where faults happen."""

    def __init__(self, servers: Servers, crew: Crew, journal: Journal, *, began: float) -> None:
        self._servers = servers
        self._crew = crew
        self._journal = journal
        self._lanes = [asyncio.Lock() for _ in range(LANES)]
        self._began = began

    async def rage(self, seed: str, seconds: float, only: Collection[Kind]) -> None:
        """Let faults happen for this long; returns when the last one is over and everything restored."""
        async with asyncio.TaskGroup() as raging:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    for fault in faults(seed, self._servers.kinds, only):
                        await asyncio.sleep(fault.pause_seconds)
                        await self._lanes[fault.lane].acquire()
                        raging.create_task(self._happen(fault), name=str(fault))

    async def _happen(self, fault: Fault) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {fault}", flush=True)
        try:
            await self._cause(fault)
        finally:
            self._lanes[fault.lane].release()

    @contextmanager
    def _crash(self, server: str) -> Iterator[None]:
        began = self._journal.now()
        yield
        self._journal.write(Crashed(began, server))

    async def _cause(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.TERMINATE:
                for url in self._servers.urls.values():
                    await _terminate(url, fault.share)
            case Kind.CUT | Kind.REFUSE | Kind.FREEZE | Kind.FREEZE_REQUESTS | Kind.FREEZE_ANSWERS:
                proxies = [one for place in fault.places for one in self._crew.paths[place].proxies()]
                await asyncio.gather(*[_disturb(one, fault) for one in proxies])
            case Kind.KILL:
                await self._crew.replace(fault.places[0], Ending.KILLED)
            case Kind.END:
                await self._crew.replace(fault.places[0], Ending.TERMINATED)
            case Kind.STOP:
                await self._stop(fault)
            case _:
                await self._servers.cause(fault, self._crash)

    async def _stop(self, fault: Fault) -> None:
        member = self._crew.at(fault.places[0])
        member.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            member.signal(signal.SIGCONT)


async def _terminate(url: str, share: float) -> None:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() AND application_name <> $1 ORDER BY pid",
            HOLDER,
        )
        chosen = random.Random(share).sample(rows, math.ceil(share * len(rows)))
        await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", chosen)
    finally:
        await connection.close()


async def _disturb(proxy: Proxies, fault: Fault) -> None:
    match fault.kind:
        case Kind.CUT:
            proxy.cut()
            return
        case Kind.REFUSE:
            proxy.refuse()
            proxy.cut()
        case _:
            proxy.freeze(*_FROZEN[fault.kind], new_connections=fault.freezes_new)
    try:
        await asyncio.sleep(fault.seconds)
    finally:
        proxy.restore(held=fault.held)


@asynccontextmanager
async def open_transaction(url: str) -> AsyncIterator[None]:
    """Meanwhile another session has a transaction open; a restart of the server ends it, and a new one is begun."""
    holding = asyncio.create_task(_hold_transactions(url), name="hold a transaction")
    try:
        yield
    finally:
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)


async def _hold_transactions(url: str) -> None:
    while True:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await _hold_transaction(url)
        await asyncio.sleep(0.1)


async def _hold_transaction(url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"application_name": HOLDER})
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        # With an id and a snapshot, so that nothing that is deleted from now on can be cleaned away.
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
        await lost.wait()
    finally:
        connection.terminate()
