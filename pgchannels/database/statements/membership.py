"""Statements about the queues that belong to topics."""

from sqlalchemy import Executable, delete, func
from sqlalchemy.dialects.postgresql import insert

from pgchannels.database.tables import Schema


def add_member(schema: Schema, topic: str, queue: str) -> Executable:
    """Give a queue a copy of every message to a topic, by their addresses."""
    return insert(schema.member).values(topic=topic, queue=queue).on_conflict_do_nothing()


def remove_member(schema: Schema, topic: str, queue: str) -> Executable:
    """Undo `add_member`."""
    return delete(schema.member).where(schema.member.c.topic == topic, schema.member.c.queue == queue)


def remove_all_members(schema: Schema, prefix: str) -> Executable:
    """Delete every queue's membership of a prefix."""
    topic = schema.member.c.topic
    return delete(schema.member).where(func.split_part(topic, ":", 2) == prefix)
