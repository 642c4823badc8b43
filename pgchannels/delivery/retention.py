"""Rotates the slots of the log."""

import asyncio
import logging
from datetime import timedelta
from typing import Final

import asyncpg
from sqlalchemy.exc import DBAPIError

from pgchannels.database.connections import Connections, is_connection_failure
from pgchannels.database.statements.nodes import keep_messages_for, rotate
from pgchannels.database.tables import Schema

_INTERVAL_SECONDS: Final = 2

logger = logging.getLogger("pgchannels")


class Retention:
    """Keeps messages for as long as they may be needed, and the log as small as that allows."""

    def __init__(self, connections: Connections, schema: Schema, *, expiry_seconds: float) -> None:
        self._connections = connections
        self._schema = schema
        self._expiry = timedelta(seconds=expiry_seconds)

    async def open(self) -> None:
        """Make the log keep messages until this layer's expire."""
        await self._connections.run(keep_messages_for(self._schema, self._expiry))

    async def run(self) -> None:
        """Rotate when it is time, for ever; whichever node comes first does it."""
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            try:
                await self._connections.run(rotate(self._schema))
            except Exception as error:
                if _is_lock_timeout(error):
                    logger.debug("somebody reads the oldest slot: rotating later")
                elif is_connection_failure(error):
                    logger.debug("the database cannot be reached: rotating later")
                else:
                    raise


def _is_lock_timeout(error: Exception) -> bool:
    return (
        isinstance(error, DBAPIError)
        and getattr(error.orig, "sqlstate", None) == asyncpg.LockNotAvailableError.sqlstate
    )
