"""Statements that choose and show the durability of the log."""

from typing import Any, Final

from sqlalchemy import Boolean, Executable, Select, Text, column, select, table, text, update

from pgchannels.database.tables import Schema

# Who holds the tables that must be changed, longest first.
HOLDERS: Final = """
    SELECT DISTINCT a.pid, a.application_name, a.xact_start
    FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND a.xact_start IS NOT NULL
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
      AND l.relation IN (
          SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          WHERE n.nspname = :schema
      )
    ORDER BY a.xact_start LIMIT 3
"""


def choose_durability(schema: Schema, chosen: str) -> Executable:
    """Record that the log is to be `durable` or `fast`."""
    return update(schema.durability).values(chosen=chosen)


def turn_outbox(schema: Schema) -> Executable:
    """Make the outbox logged or unlogged, as was chosen; see `turn_outbox.sql`."""
    return select(schema.call("turn_outbox"))


def durability_status(schema: Schema) -> Select[tuple[str, bool, bool]]:
    """Return what is chosen, whether it holds for new messages, and whether all messages outlive a crash."""
    status = table(
        "log_status",
        column("durability", Text),
        column("durability_holds", Boolean),
        column("is_durable", Boolean),
        schema=schema.name,
    )
    return select(status.c.durability, status.c.durability_holds, status.c.is_durable)


def holders(schema: Schema) -> Executable:
    """Return up to three sessions that hold locks on tables of the schema: process ID, application, since when."""
    statement: Any = text(HOLDERS).bindparams(schema=schema.name)
    executable: Executable = statement
    return executable
