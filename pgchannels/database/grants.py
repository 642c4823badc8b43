"""The privileges that an application's role needs, and no more."""

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from pgchannels.database.connections import run_sync
from pgchannels.database.database import Database
from pgchannels.database.revision import VERSION_TABLE
from pgchannels.database.tables import VIEWS
from pgchannels.database.url import DatabaseTarget
from pgchannels.errors import ConfigurationError
from pgchannels.names import DEFAULT_SCHEMA, require_valid_schema

_TABLES: Final = {
    VERSION_TABLE: "SELECT",
    "log": "SELECT, UPDATE",
    "log_state": "SELECT",
    "stripe": "SELECT, UPDATE",
    "message": "SELECT, INSERT, DELETE",
    "node": "SELECT, INSERT, UPDATE, DELETE",
    "lease": "SELECT, INSERT, UPDATE, DELETE",
    "subscription": "SELECT, INSERT, DELETE",
    "full_channel": "SELECT, INSERT, DELETE",
    "member": "SELECT, INSERT, UPDATE, DELETE",
    "undelivered": "SELECT",
    **dict.fromkeys(VIEWS, "SELECT"),
}


_NO_ROLES: Final = ("public", "none")  # words of SQL, even in quotes


def require_role(role: str) -> str:
    """Return the name of a role.

    :raises ConfigurationError: it is empty, or stands for everybody or nobody.
    """
    if not role:
        raise ConfigurationError("--grant-to is empty: give the name of a role, or leave the option out")
    if role in _NO_ROLES:
        raise ConfigurationError(
            f"--grant-to {role} names no role, but {'everybody' if role == 'public' else 'nobody'}: give the name of"
            " the application's role"
        )
    return role


async def grant(target: DatabaseTarget, role: str, *, schema: str = DEFAULT_SCHEMA) -> None:
    """Let a role open layers: send, receive, host and rotate. It can neither change nor remove the tables.

    :raises ConfigurationError: it is no name of a role.
    :raises sqlalchemy.exc.DBAPIError: the role does not exist, or the caller may not grant; nothing was changed.
    """
    grantee = require_role(role)
    await run_sync(Database(target), lambda connection: _grant(connection, grantee, require_valid_schema(schema)))


def _grant(connection: Connection, role: str, schema: str) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    for statement in _statements(quote(role), quote(schema)):
        connection.exec_driver_sql(statement)


def _statements(grantee: str, within: str) -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {within} TO {grantee}"
    for table, privileges in _TABLES.items():
        yield f"GRANT {privileges} ON {within}.{table} TO {grantee}"
    yield f"GRANT SELECT, USAGE, UPDATE ON SEQUENCE {within}.message_id TO {grantee}"
    yield f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {within} TO {grantee}"
