"""What `pgchannels status` shows."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    FromClause,
    Select,
    Text,
    cast,
    column,
    func,
    select,
    table,
    true,
)
from sqlalchemy import text as sql

from pgchannels.database.tables import Schema
from pgchannels.names import DEAD_LETTERS


def status(schema: Schema) -> Select[Any]:
    """Return one row; sizes are in bytes, durations in seconds."""
    first, *others = (
        part.subquery() for part in (_log(schema), _slots(schema), _nodes(schema), _topics(schema), _queues(schema))
    )
    joined: FromClause = first
    for part in others:
        joined = joined.join(part, true())
    return select(
        joined,
        select(func.count()).select_from(schema.undelivered).scalar_subquery().label("undelivered_transactions"),
        func.pg_total_relation_size(_named(schema, "outbox")).label("outbox_bytes"),
        func.pg_notification_queue_usage().label("notification_queue_used"),
        func.current_setting("server_version").label("postgresql"),
    )


# One row each, also from a view without rows.


def _log(schema: Schema) -> Select[Any]:
    booleans = ("is_overdue", "durability_holds", "is_durable")
    names = ("rotated_at", "locked_slots", "durability")
    log = table("log_status", *map(column, names), *(column(name, Boolean) for name in booleans), schema=schema.name)
    return select(
        _seconds_since(func.max(log.c.rotated_at)).label("rotated_seconds_ago"),
        func.coalesce(func.bool_or(log.c.is_overdue), False).label("is_overdue"),
        func.coalesce(func.max(log.c.locked_slots), 0).label("locked_slots"),
        func.max(log.c.durability).label("durability"),
        func.bool_or(log.c.durability_holds).label("durability_holds"),
        func.bool_or(log.c.is_durable).label("is_durable"),
    )


def _slots(schema: Schema) -> Select[Any]:
    slots = func.pg_partition_tree(_named(schema, "message")).table_valued(column("relid"), column("isleaf", Boolean))
    size = func.coalesce(func.sum(func.pg_total_relation_size(slots.c.relid)), 0)
    return select(_count_if(slots.c.isleaf).label("slots"), cast(size, BigInteger).label("log_bytes"))


def _nodes(schema: Schema) -> Select[Any]:
    nodes = table("node_status", column("is_alive", Boolean), schema=schema.name)
    is_alive = nodes.c.is_alive
    return select(_count_if(is_alive).label("nodes"), _count_if(~is_alive).label("nodes_that_ended"))


def _topics(schema: Schema) -> Select[Any]:
    topics = table("group_status", column("nodes"), schema=schema.name)
    return select(_count_if(topics.c.nodes > 0).label("topics"))


def _queues(schema: Schema) -> Select[Any]:
    numbers = ("waiting", "waiting_since", "in_progress")
    queues = table("queue_status", column("name", Text), *map(column, numbers), schema=schema.name)
    queue = queues.c
    is_dead = queue.name.endswith(DEAD_LETTERS)
    return select(
        func.count().label("queues"),
        _sum(queue.waiting, ~is_dead).label("waiting"),
        _seconds_since(func.min(queue.waiting_since).filter(~is_dead)).label("waiting_seconds"),
        _sum(queue.in_progress, true()).label("in_progress"),
        _sum(queue.waiting, is_dead).label("dead_letters"),
    ).select_from(queues)


def _sum(values: ColumnElement[Any], condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return cast(func.coalesce(func.sum(values).filter(condition), 0), BigInteger)


def _count_if(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.count().filter(condition)


def _named(schema: Schema, name: str) -> ColumnElement[Any]:
    return sql(f"'\"{schema.name}\".{name}'::pg_catalog.regclass")  # type: ignore[return-value]  # a valid schema


def _seconds_since(moment: Any) -> ColumnElement[Any]:
    return cast(func.extract("epoch", func.clock_timestamp() - moment), Float(53))
