"""Creates the tables and fills the shop: `python create_tables.py`."""

import asyncio

from database import engine, new_session
from models import Base, Item


async def main() -> None:
    """Create them."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with new_session.begin() as session:
        await session.merge(Item(name="lamp", left_in_stock=2))
        await session.merge(Item(name="book", left_in_stock=100))
    await engine.dispose()


asyncio.run(main())
