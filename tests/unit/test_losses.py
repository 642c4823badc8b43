"""What says that a connection was lost."""

import asyncpg
import pytest

from pgchannels.database.failures import is_connection_failure, loss_recognised


async def test_driver_that_has_let_go_of_a_lost_connection_is_understood(server_url: str) -> None:
    connection = await asyncpg.connect(server_url)
    connection.terminate()
    with pytest.raises(ConnectionResetError) as raised, loss_recognised(connection):
        connection.is_in_transaction()  # as a statement does that was between two steps
    assert is_connection_failure(raised.value)


async def test_defect_on_a_connection_that_is_there_stays_one(server_url: str) -> None:
    connection = await asyncpg.connect(server_url)
    with pytest.raises(AttributeError), loss_recognised(connection):
        connection.no_such_attribute()  # type: ignore[attr-defined]
    await connection.close()
