"""Mixtures of loops and threads leave nothing. PGCHANNELS_TEST_ROUNDS=1000 looks longer."""

import os

import asyncpg
import pytest

from tests.lifecycle.quiet import quiet_output
from tests.support.connections import has_connections
from tests.support.waiting import until

from .mixtures import MIXTURES

ROUNDS = int(os.environ.get("PGCHANNELS_TEST_ROUNDS", "20"))
SECONDS_FOR_A_ROUND = 3


@pytest.mark.parametrize("mixture", MIXTURES)
async def test_rounds_of_a_mixture_leave_nothing(
    database_url: str, connection: "asyncpg.Connection[asyncpg.Record]", mixture: str
) -> None:
    arguments = (database_url, str(ROUNDS), mixture)
    output = await quiet_output("tests.lifecycle.mixtures", *arguments, limit_seconds=SECONDS_FOR_A_ROUND * ROUNDS)
    assert output.startswith(f"{mixture}: ")
    await until(lambda: has_connections(connection, 0))
    assert await connection.fetchval("SELECT count(*) FROM pgchannels.node") == 0
