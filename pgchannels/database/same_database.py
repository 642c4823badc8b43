"""Makes sure that two connections lead to one database."""

from dataclasses import replace

import asyncpg

from pgchannels.database.connections import Connections
from pgchannels.database.driver import DriverConnection
from pgchannels.database.statements.sending import outbox_database
from pgchannels.database.wording import Place
from pgchannels.errors import ConfigurationError


async def require_same_database(connections: Connections, listening: DriverConnection, place: Place) -> None:
    """Require that a connection to listen leads to the database of all others: what they send is heard only there.

    The database names itself, since a pooler may give it another name.

    :param place: where the connection leads to, for the error.
    :raises ConfigurationError: it leads to another database.
    """
    [(own,)] = await connections.fetch(outbox_database)
    try:
        row = await listening.fetchrow(connections.text(outbox_database))
    except (asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError):
        row = None
    if row is None or row[0] != own:
        raise ConfigurationError(
            f"listen_url leads to {replace(place, option='')}, and the layer's database is another one,"
            f" {connections.place}: give the direct address of the same database"
        )
