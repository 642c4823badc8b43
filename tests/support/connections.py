"""How many connections a database has."""

import asyncpg


async def connections_to_this_database(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """How many connections there are, apart from the one that asks."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return count


async def has_connections(connection: "asyncpg.Connection[asyncpg.Record]", expected: int) -> bool:
    """Whether there are so many now: a server process ends a moment after its client has left."""
    return await connections_to_this_database(connection) == expected


async def fetchval(url: str, query: str) -> object:
    """What a query returns on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
