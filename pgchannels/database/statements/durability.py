"""Statements that choose and show the durability of the log."""

from sqlalchemy import Boolean, Executable, Select, Text, column, select, table, update

from pgchannels.database.tables import Schema


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
