"""Creates the table of orders: `python create_tables.py`."""

import asyncio
import os

import asyncpg

TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    id serial PRIMARY KEY, customer text NOT NULL, item text NOT NULL, is_shipped boolean NOT NULL DEFAULT false
)
"""


async def main() -> None:
    """Create it."""
    connection = await asyncpg.connect(os.environ["PGCHANNELS_URL"])
    await connection.execute(TABLE)
    await connection.close()


asyncio.run(main())
