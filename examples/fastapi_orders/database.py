"""The database of the shop, for SQLAlchemy."""

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

if not os.environ.get("PGCHANNELS_URL"):
    raise SystemExit("set PGCHANNELS_URL to a database, such as postgresql://user:password@localhost/shop")
URL = os.environ["PGCHANNELS_URL"]
engine = create_async_engine(URL.replace("postgresql://", "postgresql+asyncpg://"))
new_session = async_sessionmaker(engine)
