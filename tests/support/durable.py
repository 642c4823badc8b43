"""Makes the log of a server durable, and crashes the server."""

import asyncio
from contextlib import suppress

import asyncpg

from pgchannels.database.database import Database
from pgchannels.database.durability import Durability, choose
from pgchannels.database.tables import schema_named
from pgchannels.embedded import EmbeddedServer
from pgchannels.names import DEFAULT_SCHEMA
from tests.support.log import let_pass, rotate
from tests.support.waiting import until


async def make(url: str, chosen: Durability) -> None:
    """As `pgchannels durability` does it."""
    await choose(Database(url), schema_named(DEFAULT_SCHEMA), chosen, timeout_seconds=30)


async def make_all_durable(url: str) -> None:
    """Make the log durable, and let what was fast leave it."""
    await make(url, "durable")
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE pgchannels.log SET retention = greatest(retention, '60 s')")
    await let_pass(connection, 600)
    await until(lambda: _is_all_durable(connection))
    await connection.close()


async def _is_all_durable(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    with suppress(asyncpg.LockNotAvailableError):  # a reader is in the way, or a node rotates as well
        await rotate(connection)
    return bool(await connection.fetchval("SELECT is_durable FROM pgchannels.log_status"))


async def crash(server: EmbeddedServer) -> None:
    """SIGKILL, and a start with what was on the disk."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
