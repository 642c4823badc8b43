"""Starts the processes of `pgchannels.cli.listening`, and ends them whatever happens."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from pgchannels.cli.listening import READY, Order
from pgchannels.database.connections import Connections
from pgchannels.errors import ConfigurationError, DatabaseUnavailable

CONNECTIONS_EACH: Final = 2
_OWN_CONNECTIONS: Final = 8  # of the command itself, with some to spare for others
_START_SECONDS: Final = 30.0
_START_SECONDS_EACH: Final = 0.5
_END_SECONDS: Final = 20.0
_END_SECONDS_EACH: Final = 0.1

# A role sees how many sessions there are, though not what those of others do.
_LIMITS: Final = """
    SELECT current_setting('server_version_num')::integer, current_setting('max_connections')::integer,
           current_setting('superuser_reserved_connections')::integer
           + coalesce(current_setting('reserved_connections', true)::integer, 0)
           + (SELECT sum(numbackends) FROM pg_stat_database)::integer,
           (SELECT datconnlimit - pg_stat_get_db_numbackends(oid) FROM pg_database
            WHERE datname = current_database() AND datconnlimit >= 0),
           (SELECT rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid)::integer
            FROM pg_roles AS r WHERE rolname = current_user AND rolconnlimit >= 0)
"""


@dataclass(frozen=True, slots=True)
class Room:
    """What the server is, and how many connections more it takes from us."""

    version: int
    most: int
    free: int


async def room_for(connections: Connections, processes: int) -> Room:
    """Return what room there is for so many processes.

    :raises ConfigurationError: it does not suffice.
    """
    [(version, most, taken, of_database, of_role)] = await connections.fetch_text(_LIMITS)
    free = min(most - taken, *(limit for limit in (of_database, of_role) if limit is not None), most)
    wanted = CONNECTIONS_EACH * processes + _OWN_CONNECTIONS
    if wanted > free:
        fitting = max((free - _OWN_CONNECTIONS) // CONNECTIONS_EACH, 0)
        raise ConfigurationError(
            f"--processes {processes} takes {wanted} connections, and the server has {free} left for this role and"
            f" database, with max_connections={most}: ask for {fitting} processes at most, or raise the limit"
        )
    return Room(version, most, free)


@asynccontextmanager
async def listening(order: Order) -> AsyncIterator[None]:
    """Have these processes listen; after the block, all of them have ended, and their nodes are removed.

    :raises ConfigurationError: this system cannot fork.
    :raises DatabaseUnavailable: one of them could not listen.
    """
    if not hasattr(os, "fork"):
        raise ConfigurationError("--processes needs a system that can fork a process, and this one cannot")
    crew = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from pgchannels.cli.listening import main; main()",
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,  # out of reach of the terminal's Ctrl-C: they end with their input, in their own time
    )
    try:
        await _begun(crew, order)
        yield
    finally:
        await _ended(crew, within_seconds=_END_SECONDS + _END_SECONDS_EACH * order.processes)


async def _begun(crew: Process, order: Order) -> None:
    assert crew.stdin is not None
    assert crew.stdout is not None
    try:
        async with asyncio.timeout(_START_SECONDS + _START_SECONDS_EACH * order.processes):
            crew.stdin.write(order.to_line())
            await crew.stdin.drain()
            for _ in range(order.processes):
                line = (await crew.stdout.readline()).decode().strip()
                if line != READY:
                    raise DatabaseUnavailable(f"a listening process did not start: {line or 'it ended by itself'}")
    except TimeoutError:
        raise DatabaseUnavailable(f"{order.processes} listening processes took too long to start") from None


async def _ended(crew: Process, *, within_seconds: float) -> None:
    assert crew.stdin is not None
    crew.stdin.close()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await crew.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(crew.pid, signal.SIGKILL)  # its children as well, which are in its group
        await crew.wait()
