"""The table of `pgchannels demo`: whoever changes its rows by SQL, the pages of both servers show it."""

import asyncio
import os
import shlex
from typing import Final

from sqlalchemy import Connection

from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from pgchannels.database.row_changes import RowChanges
from pgchannels.embedded import EmbeddedServer

_TABLE: Final = "public.orders"
_CREATE: Final = f"CREATE TABLE {_TABLE} (id integer PRIMARY KEY, item text NOT NULL, amount integer NOT NULL)"
_FILL: Final = f"INSERT INTO {_TABLE} VALUES (1, 'book', 2), (2, 'lamp', 1), (3, 'chair', 4)"  # noqa: S608 -- constants
_CHANGE: Final = "UPDATE orders SET amount = amount + 1 WHERE id = 2"


def create_orders(url: str) -> None:
    """Create the table, and the trigger that publishes its changes to the topic `orders`."""

    def work(connection: Connection) -> None:
        for statement in (_CREATE, _FILL, RowChanges(topic="orders").start(_TABLE)):
            connection.exec_driver_sql(statement)

    asyncio.run(run_sync(Database(url), work))


def changing_command(server: EmbeddedServer) -> str:
    """Return a command for a shell that changes a row."""
    own = server.binaries / "psql"
    return shlex.join([str(own) if os.access(own, os.X_OK) else "psql", server.url(), "-c", _CHANGE])
