"""The log's slots rotate, and what that keeps and removes."""

import asyncpg
import pytest

from pgchannels import MessageLayer


async def rotate(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Rotate if the retention allows it."""
    rotated: bool = await connection.fetchval("SELECT pgchannels.rotate()")
    return rotated


async def test_messages_are_kept_for_two_rotations_and_removed_by_the_third(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("UPDATE pgchannels.log SET retention = '0'")
    await layer.publish("room", "old")
    kept = []
    for _ in range(3):
        assert await rotate(connection)
        kept.append([message.payload for message in await layer.history("room")])
        await layer.publish("room", "new")
    assert kept == [["old"], ["old", "new"], ["new", "new"]]


async def test_log_does_not_rotate_before_half_of_the_retention(
    layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await layer.publish("room", 1)
    assert not await rotate(connection)
    await connection.execute("UPDATE pgchannels.log_state SET rotated_at = rotated_at - interval '29 s'")
    assert not await rotate(connection)
    await connection.execute("UPDATE pgchannels.log_state SET rotated_at = rotated_at - interval '1 s'")
    assert await rotate(connection)
    assert not await rotate(connection)


async def test_longest_expiry_decides_on_the_retention(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    for expiry in (300, 100):
        async with MessageLayer(database_url, expiry=expiry):
            assert await connection.fetchval("SELECT retention = '300 s' FROM pgchannels.log")


async def test_reader_of_the_oldest_slot_puts_rotation_off_but_not_senders(
    database_url: str, layer: MessageLayer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await layer.publish("room", 1)
    await connection.execute("UPDATE pgchannels.log SET retention = '0'")
    reader = await asyncpg.connect(database_url)
    async with reader.transaction():
        await reader.fetch("SELECT FROM pgchannels.message")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await rotate(connection)
        await layer.publish("room", 2)
    await reader.close()
    assert await rotate(connection)


async def test_expired_messages_are_not_read(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with MessageLayer(database_url) as layer:
        await layer.publish("room", "expired")
        await layer.send("jobs", "expired")
        await connection.execute("UPDATE pgchannels.message SET expires_at = now()")
        await layer.publish("room", "fresh")
        await layer.send("jobs", "fresh")
        assert [message.payload for message in await layer.history("room")] == ["fresh"]
        assert await layer.receive("jobs") == "fresh"
