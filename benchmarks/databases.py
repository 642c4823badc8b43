"""Databases of the run: a fresh one with all tables for each contestant of each work."""

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import asyncpg
from sqlalchemy import make_url

from benchmarks.contestants import Addresses
from pgchannels.database import migrations

_TEMPLATE: Final = "benchmark_template"


async def prepare_template(server_url: str, *, with_channels_postgres: bool) -> None:
    """Create the database that all others are copies of."""
    await _execute(server_url, f"CREATE DATABASE {_TEMPLATE}")
    url = _url(server_url, _TEMPLATE)
    await migrations.upgrade(url)
    if with_channels_postgres:
        code = f"from benchmarks.contestants.channels_postgres import create_tables; create_tables({url!r})"
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)


async def create_database(addresses: Addresses) -> Addresses:
    """The same servers with a database that nobody has used."""
    name = f"benchmark_{secrets.token_hex(4)}"
    await _execute(addresses.postgres, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    return replace(addresses, postgres=_url(addresses.postgres, name))


@asynccontextmanager
async def fresh_database(addresses: Addresses) -> AsyncIterator[Addresses]:
    """The same as `create_database`, removed afterwards."""
    own = await create_database(addresses)
    try:
        yield own
    finally:
        name = make_url(own.postgres).database
        await _execute(addresses.postgres, f"DROP DATABASE {name} WITH (FORCE)")


async def settle(server_url: str) -> None:
    """Write to disk what earlier works have left to write, so that no later one pays for it."""
    await _execute(server_url, "CHECKPOINT")


def _url(server_url: str, name: str) -> str:
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
