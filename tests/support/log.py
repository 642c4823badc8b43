"""What time and crashes do to the log, without waiting for them."""

import asyncpg


async def rotate(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Take all steps that the retention allows; returns whether the current slot is another one."""
    slot = "SELECT slot FROM pgchannels.log_state"
    before = await connection.fetchval(slot)
    while await connection.fetchval("SELECT pgchannels.rotate()"):
        pass
    return bool(await connection.fetchval(slot) != before)


async def let_pass(connection: "asyncpg.Connection[asyncpg.Record]", seconds: int) -> None:
    """Make the log believe that time has passed."""
    await connection.execute(
        f"""
        UPDATE pgchannels.log_state SET rotated_at = rotated_at - interval '{seconds} s';
        UPDATE pgchannels.filled_slot SET filled_at = filled_at - interval '{seconds} s'
        """
    )


async def count_slots(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """How many tables the log has."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'pgchannels.message'::regclass"
    )
    return count


async def lose_the_log(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """What a crash of the server does to the tables."""
    await connection.execute(
        """
        TRUNCATE pgchannels.message, pgchannels.log_state, pgchannels.filled_slot, pgchannels.subscription,
            pgchannels.node, pgchannels.full_channel;
        ALTER SEQUENCE pgchannels.message_id RESTART
        """
    )


async def rotate_everything_away(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Let so much time pass that no message is left."""
    for _ in range(4):
        await let_pass(connection, 60)
        await rotate(connection)
