"""Statements that put messages into the log."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Executable,
    Float,
    Integer,
    LargeBinary,
    Select,
    Text,
    bindparam,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY

from pgchannels.database.tables import Schema


def deliver(schema: Schema) -> Select[Any]:
    """Deliver a batch; see `deliver.sql`. The parameters are in the order below."""
    delivered = schema.call(
        "deliver",
        bindparam("batch", type_=BigInteger),
        bindparam("valid_until", type_=Float(53)),
        bindparam("addresses", type_=ARRAY(Text)),
        bindparam("channels", type_=ARRAY(Text)),
        bindparam("payloads", type_=ARRAY(LargeBinary)),
        bindparam("capacities", type_=ARRAY(Integer)),
        bindparam("parts", type_=ARRAY(Integer)),
        bindparam("expiry_seconds", type_=Float(53)),
        bindparam("known_until", type_=BigInteger),
        bindparam("keys", type_=ARRAY(Text)),
        bindparam("expiries", type_=ARRAY(Float(53))),
    ).table_valued("first_id", "refused", "dropped", "repeated")
    return select(*delivered.c)


def enqueue(schema: Schema) -> Select[tuple[str | None]]:
    """Put messages into the outbox; see `enqueue.sql`. The parameters are named as below."""
    return select(
        schema.call(
            "enqueue",
            bindparam("expected", type_=Text),
            bindparam("addresses", type_=ARRAY(Text)),
            bindparam("channels", type_=ARRAY(Text)),
            bindparam("payloads", type_=ARRAY(LargeBinary)),
            bindparam("capacities", type_=ARRAY(Integer)),
            bindparam("keys", type_=ARRAY(Text)),
            bindparam("expiries", type_=ARRAY(Float(53))),
        )
    )


def outbox_database(schema: Schema) -> Select[tuple[str]]:
    """Return how the database names itself; see `outbox_database.sql`."""
    return select(schema.call("outbox_database"))


def deliver_undelivered(schema: Schema) -> Select[tuple[None]]:
    """Deliver what some transactions could not; see `deliver_undelivered.sql`."""
    return select(schema.call("deliver_undelivered"))


def remove_all_messages(schema: Schema, prefix: str) -> Executable:
    """Delete every message of a prefix."""
    address = schema.message.c.address
    return delete(schema.message).where(func.split_part(address, ":", 2) == prefix)
