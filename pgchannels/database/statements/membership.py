"""Statements about the queues that belong to topics."""

from datetime import timedelta

from sqlalchemy import Executable, delete, func, null
from sqlalchemy.dialects.postgresql import insert

from pgchannels.database.tables import Schema


def add_member(schema: Schema, topic: str, queue: str, *, capacity: int, expiry: timedelta | None) -> Executable:
    """Give a queue a copy of every message to a topic, by their addresses, while fewer than `capacity` wait in it."""
    expires_at = null() if expiry is None else func.clock_timestamp() + expiry
    statement = insert(schema.member).values(topic=topic, queue=queue, capacity=capacity, expires_at=expires_at)
    renewed = {"capacity": statement.excluded.capacity, "expires_at": statement.excluded.expires_at}
    return statement.on_conflict_do_update(index_elements=[schema.member.c.topic, schema.member.c.queue], set_=renewed)


def remove_member(schema: Schema, topic: str, queue: str) -> Executable:
    """Undo `add_member`."""
    return delete(schema.member).where(schema.member.c.topic == topic, schema.member.c.queue == queue)


def remove_all_members(schema: Schema, prefix: str) -> Executable:
    """Delete the memberships of all queues in topics of a prefix."""
    topic = schema.member.c.topic
    return delete(schema.member).where(func.split_part(topic, ":", 2) == prefix)
