"""Statements about how long the log keeps messages."""

from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Executable,
    Float,
    Interval,
    Select,
    Update,
    bindparam,
    cast,
    column,
    extract,
    func,
    literal,
    literal_column,
    select,
    table,
    update,
)

from pgchannels.database.statements.reading import interval
from pgchannels.database.tables import Schema


def keep_messages_for(schema: Schema) -> Select[Any]:
    """Make the log keep messages for at least so many seconds, the one parameter; see `keep_messages_for.sql`."""
    return select(schema.call("keep_messages_for", bindparam("seconds", type_=Float(53))))


def retention(schema: Schema) -> Select[Any]:
    """Return how long the log keeps messages, what somebody has set, and what layers need."""
    log = schema.log
    return select(log.c.retention, log.c.chosen, func.greatest(log.c.needed, log.c.needed_before))


def set_retention(schema: Schema, chosen: timedelta) -> Update:
    """Make the log keep messages for so long, or for longer if layers need that."""
    log = schema.log
    in_seconds = interval(_seconds(chosen))
    kept = func.greatest(in_seconds, log.c.needed, log.c.needed_before)
    return update(log).values(chosen=in_seconds, retention=kept)


def kept_topics(schema: Schema) -> Select[Any]:
    """Return the topics that are kept for longer: their addresses, whether it is a pattern, how long."""
    kept = schema.kept_topic
    return select(kept.c.address, kept.c.is_pattern, kept.c.retention).order_by(kept.c.address, kept.c.is_pattern)


def keep_topics_for(schema: Schema, pattern: str, prefix: str, chosen: timedelta) -> Select[Any]:
    """Make the log keep messages to some topics for so long, or with 0 as others; see `keep_topics_for.sql`."""
    return select(schema.call("keep_topics_for", literal(pattern), literal(prefix), _seconds(chosen)))


def rotate(schema: Schema) -> Executable:
    """Take the next step of rotating the log's slots, if one is due; returns whether one was. See `rotate.sql`."""
    return select(schema.call("rotate"))


def rotation_is_overdue(schema: Schema) -> Executable:
    """Whether the rotation of the log is due, and overdue, see `log_status.sql`, and the database's time."""
    due_at = column("rotated_at", DateTime(timezone=True)) + literal_column("retention / 2", Interval)
    status = table("log_status", column("is_overdue", Boolean), schema=schema.name)
    clock = cast(extract("epoch", func.clock_timestamp()), Float(53))
    return select(due_at <= func.clock_timestamp(), status.c.is_overdue, clock)


def _seconds(duration: timedelta) -> ColumnElement[float]:
    return literal(duration.total_seconds(), Float(53))
