"""Statements about the queues that belong to topics."""

from sqlalchemy import Executable, delete, func
from sqlalchemy.dialects.postgresql import insert

from pgchannels.database.tables import Schema


def add_member(schema: Schema, topic: str, queue: str, *, capacity: int) -> Executable:
    """Give a queue a copy of every message to a topic, by their addresses, while fewer than `capacity` wait in it."""
    statement = insert(schema.member).values(topic=topic, queue=queue, capacity=capacity)
    return statement.on_conflict_do_update(
        index_elements=[schema.member.c.topic, schema.member.c.queue], set_={"capacity": statement.excluded.capacity}
    )


def remove_member(schema: Schema, topic: str, queue: str) -> Executable:
    """Undo `add_member`."""
    return delete(schema.member).where(schema.member.c.topic == topic, schema.member.c.queue == queue)


def remove_all_members(schema: Schema, prefix: str) -> Executable:
    """Delete every queue's membership of a prefix."""
    topic = schema.member.c.topic
    return delete(schema.member).where(func.split_part(topic, ":", 2) == prefix)
