"""The privileges that an application's role needs, and no more."""

from collections.abc import Callable, Iterable, Iterator
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
    "kept_topic": "SELECT",
    "stripe": "SELECT, UPDATE",
    "message": "SELECT, INSERT, DELETE",
    "node": "SELECT, INSERT, UPDATE, DELETE",
    "lease": "SELECT, INSERT, UPDATE, DELETE",
    "subscription": "SELECT, INSERT, UPDATE, DELETE",
    "full_channel": "SELECT, INSERT, DELETE",
    "member": "SELECT, INSERT, UPDATE, DELETE",
    "undelivered": "SELECT",
    **dict.fromkeys(VIEWS, "SELECT"),
}


# What runs as the owner of the tables; and what a writer to a table needs whose changes are published.
_PUBLISHING: Final = (
    "enqueue",
    "outbox_database",
    "publish",
    "publish_many",
    "send",
    "topic_address",
    "topic_of_row",
    "publish_row_change",
    "publish_row_changes",
    "stop_row_changes",
)
_NO_ROLES: Final = ("public", "none")  # words of SQL, even in quotes


def require_role(role: str, option: str = "--grant-to") -> str:
    """Return the name of a role.

    :raises ConfigurationError: it is empty, or stands for everybody or nobody.
    """
    if not role:
        raise ConfigurationError(f"{option} is empty: give the name of a role, or leave the option out")
    if role in _NO_ROLES:
        raise ConfigurationError(
            f"{option} {role} names no role, but {'everybody' if role == 'public' else 'nobody'}: give the name of"
            " the application's role"
        )
    return role


async def grant(target: DatabaseTarget, role: str, *, schema: str = DEFAULT_SCHEMA) -> None:
    """Let a role open layers: send, receive, host and rotate. It can neither change nor remove the tables.

    :raises ConfigurationError: it is no name of a role.
    :raises sqlalchemy.exc.DBAPIError: the role does not exist, or the caller may not grant; nothing was changed.
    """
    grantee = require_role(role)
    await run_sync(Database(target), lambda connection: _grant(connection, _all, grantee, schema))


async def grant_publishing(target: DatabaseTarget, role: str, *, schema: str = DEFAULT_SCHEMA) -> None:
    """Let a role publish in transactions, from SQL and by triggers, and nothing else; raises as `grant`."""
    grantee = require_role(role, "--grant-publish-to")
    await run_sync(Database(target), lambda connection: _grant(connection, _to_publish, grantee, schema))


def _grant(connection: Connection, statements: Callable[[str, str], Iterable[str]], role: str, schema: str) -> None:
    quote = connection.dialect.identifier_preparer.quote_identifier
    for statement in statements(quote(role), quote(require_valid_schema(schema))):
        connection.exec_driver_sql(statement)


def _to_publish(grantee: str, within: str) -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {within} TO {grantee}"
    yield f"GRANT SELECT ON {within}.{VERSION_TABLE} TO {grantee}"  # commands look whether the tables are there
    for function in _PUBLISHING:
        yield f"GRANT EXECUTE ON FUNCTION {within}.{function} TO {grantee}"


def _all(grantee: str, within: str) -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {within} TO {grantee}"
    for table, privileges in _TABLES.items():
        yield f"GRANT {privileges} ON {within}.{table} TO {grantee}"
    yield f"GRANT SELECT, USAGE, UPDATE ON SEQUENCE {within}.message_id TO {grantee}"
    yield f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {within} TO {grantee}"
