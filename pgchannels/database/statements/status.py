"""What `pgchannels status` shows."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, ColumnElement, Float, Select, cast, column, func, select, table, true
from sqlalchemy import text as sql

from pgchannels.database.tables import Schema


def status(schema: Schema) -> Select[Any]:
    """Return one row; sizes are in bytes, durations in seconds."""
    return select(
        *_log(schema),
        *_receivers(schema),
        *_queues(schema),
        _count_of(schema.undelivered).label("undelivered_transactions"),
        func.pg_total_relation_size(_named(schema, "outbox")).label("outbox_bytes"),
        func.pg_notification_queue_usage().label("notification_queue_used"),
        func.current_setting("server_version").label("postgresql"),
    )


def _log(schema: Schema) -> list[ColumnElement[Any]]:
    names = ("rotated_at", "is_overdue", "locked_slots", "durability", "durability_holds", "is_durable")
    log = table("log_status", *map(column, names), schema=schema.name)
    slots = func.pg_partition_tree(_named(schema, "message")).table_valued(column("relid"), column("isleaf", Boolean))
    size = func.coalesce(func.sum(func.pg_total_relation_size(slots.c.relid)), 0)
    return [
        select(_seconds_since(log.c.rotated_at)).scalar_subquery().label("rotated_seconds_ago"),
        select(func.coalesce(func.bool_or(log.c.is_overdue), False)).scalar_subquery().label("is_overdue"),
        *(select(log.c[name]).scalar_subquery().label(name) for name in names[3:]),
        _count_of(slots, slots.c.isleaf).label("slots"),
        select(func.coalesce(func.max(log.c.locked_slots), 0)).scalar_subquery().label("locked_slots"),
        select(cast(size, BigInteger)).scalar_subquery().label("log_bytes"),
    ]


def _receivers(schema: Schema) -> list[ColumnElement[Any]]:
    nodes = table("node_status", column("is_alive", Boolean), schema=schema.name)
    topics = table("group_status", column("nodes"), schema=schema.name)
    return [
        _count_of(nodes, nodes.c.is_alive).label("nodes"),
        _count_of(nodes, ~nodes.c.is_alive).label("nodes_that_ended"),
        _count_of(topics, topics.c.nodes > 0).label("topics"),
    ]


def _queues(schema: Schema) -> list[ColumnElement[Any]]:
    queues = table("queue_status", column("waiting"), column("waiting_since"), schema=schema.name)
    waiting = cast(func.coalesce(func.sum(queues.c.waiting), 0), BigInteger)
    return [
        _count_of(queues).label("queues"),
        select(waiting).select_from(queues).scalar_subquery().label("waiting"),
        select(_seconds_since(func.min(queues.c.waiting_since))).scalar_subquery().label("waiting_seconds"),
    ]


def _count_of(rows: Any, condition: ColumnElement[bool] | None = None) -> Any:
    wanted = true() if condition is None else condition
    return select(func.count()).select_from(rows).where(wanted).scalar_subquery()


def _named(schema: Schema, name: str) -> ColumnElement[Any]:
    return sql(f"'\"{schema.name}\".{name}'::pg_catalog.regclass")  # type: ignore[return-value]  # a valid schema


def _seconds_since(moment: Any) -> ColumnElement[Any]:
    return cast(func.extract("epoch", func.clock_timestamp() - moment), Float(53))
