"""Statements that put messages into the log."""

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


def deliver(schema: Schema) -> Select[tuple[int, list[int] | None, int | None]]:
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
    ).table_valued("first_id", "refused", "dropped")
    return select(delivered.c.first_id, delivered.c.refused, delivered.c.dropped)


def remove_all_messages(schema: Schema, prefix: str) -> Executable:
    """Delete every message of a prefix."""
    address = schema.message.c.address
    return delete(schema.message).where(func.split_part(address, ":", 2) == prefix)
