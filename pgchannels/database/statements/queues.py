"""Statements about work queues: channels without '!', for whose messages all processes compete."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Executable,
    Float,
    Integer,
    LargeBinary,
    Select,
    Text,
    bindparam,
    column,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from pgchannels.database.tables import Schema


def take(schema: Schema) -> Select[Any]:
    """Take messages from the front of a queue, and say which work is done. See `take.sql`.

    The parameters are in the order below. The first columns are those of an `Arrival`.
    """
    taken = schema.call(
        "take",
        bindparam("claim_id", type_=BigInteger),
        bindparam("valid_until", type_=Float(53)),
        bindparam("address", type_=Text),
        bindparam("most", type_=Integer),
        bindparam("node_address", type_=Text),
        bindparam("known_token", type_=BigInteger),
        bindparam("waits_for_lock", type_=Boolean),
        bindparam("visible_seconds", type_=Float(53)),
        bindparam("most_attempts", type_=Integer),
        bindparam("done_numbers", type_=ARRAY(BigInteger)),
        bindparam("done_ids", type_=ARRAY(BigInteger)),
    ).table_valued(
        column("id", BigInteger),
        column("published_microseconds", BigInteger),
        column("address", Text),
        column("channel", Text),
        column("payload", LargeBinary),
        column("lost", BigInteger),
        column("number", BigInteger),
        column("attempts", Integer),
        column("late", Integer),
        column("token", BigInteger),
    )
    return select(*taken.c)


def give_back(schema: Schema) -> Select[Any]:
    """Put messages that were under work back into their queue, or to its dead letters. See `give_back.sql`."""
    return select(
        schema.call(
            "give_back",
            bindparam("address", type_=Text),
            bindparam("numbers", type_=ARRAY(BigInteger)),
            bindparam("ids", type_=ARRAY(BigInteger)),
            bindparam("have_failed", type_=ARRAY(Boolean)),
        )
    )


def give_back_abandoned(schema: Schema) -> Select[Any]:
    """Put messages back that nobody works on any more; returns when to look again. See `give_back_abandoned.sql`."""
    return select(
        schema.call(
            "give_back_abandoned",
            bindparam("address", type_=Text),
            bindparam("node_address", type_=Text),
            bindparam("known_ids", type_=ARRAY(BigInteger)),
        )
    )


def wake_another(schema: Schema, queue: str) -> Executable:
    """Wake a node that waits for messages to a queue."""
    return select(schema.call("wake_another", queue))
