"""Ids never fall behind positions that somebody kept."""

import asyncpg


async def begin_again(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Leave the log as a crash does: its unlogged tables are empty."""
    await connection.execute("TRUNCATE pgchannels.message, pgchannels.log_state, pgchannels.filled_slot")


async def first_id(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Where the log began."""
    began_at: int = await connection.fetchval("SELECT began_at FROM pgchannels.extent()")
    return began_at


async def last_id(connection: "asyncpg.Connection[asyncpg.Record]", batches: int) -> int:
    """The last id of so many batches that were taken at once."""
    taken: int = await connection.fetchval(
        f"SELECT max(nextval('pgchannels.message_id')) + 511 FROM generate_series(1, {batches})"
    )
    return taken


async def test_every_epoch_begins_with_a_block(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # A batch that is repeated is found by any of its rows: the block that it is in tells the id of the first.
    for _ in range(5):
        assert await first_id(connection) % 512 == 0
        await begin_again(connection)


async def test_log_that_begins_again_goes_on_behind_the_last_epoch(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await first_id(connection)
    last = await last_id(connection, batches=10)
    await begin_again(connection)
    assert last < await first_id(connection)


async def test_standby_that_missed_the_epoch_goes_on_behind_it_at_once(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    before = await connection.fetchval("SELECT epoch FROM pgchannels.log")
    await first_id(connection)
    last = await last_id(connection, batches=1)
    await begin_again(connection)
    await connection.execute(f"UPDATE pgchannels.log SET epoch = {before}")
    assert last < await first_id(connection)
