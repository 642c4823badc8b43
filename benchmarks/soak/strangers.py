"""Other people's sessions that get in the way: a transaction left open, and a dump that takes its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg


class DumpFailed(Exception):
    """`pg_dump` did not do what the soak or its user wants of it."""


@asynccontextmanager
async def open_transaction(url: str) -> AsyncIterator[None]:
    """A transaction with a snapshot and an id, idle for as long as the block: what dies meanwhile is not vacuumed."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT 1; SELECT txid_current()")
        yield
        await connection.execute("COMMIT")
    finally:
        connection.terminate()


@asynccontextmanager
async def held_dump(url: str, binaries: Path) -> AsyncIterator[None]:
    """A `pg_dump` that nobody reads from: it keeps its locks on all tables of the schema for as long as the block.

    :raises DumpFailed: there was too little to dump for it to wait, or it did not end well once it was read.
    """
    dump = await asyncio.create_subprocess_exec(
        binaries / "pg_dump", "--schema=pgchannels", url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        await _until_it_waits(url, dump)
        if dump.returncode == 0:
            raise DumpFailed("pg_dump waited for nobody: send more messages, so that it has more to write")
        if dump.returncode is None:
            yield
        _, errors = await dump.communicate()
        if dump.returncode:
            raise DumpFailed(f"pg_dump ended with status {dump.returncode}: {errors.decode()}")
    finally:
        if dump.returncode is None:
            dump.kill()
            await dump.wait()


async def _until_it_waits(url: str, dump: asyncio.subprocess.Process) -> None:
    connection = await asyncpg.connect(url)
    waiting = "SELECT FROM pg_stat_activity WHERE application_name = 'pg_dump' AND wait_event = 'ClientWrite'"
    try:
        while dump.returncode is None and not await connection.fetch(waiting):  # noqa: ASYNC110 (lies in a server)
            await asyncio.sleep(0.05)
    finally:
        connection.terminate()
