"""Statements that put messages into the log."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Executable,
    Float,
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


def deliver(schema: Schema) -> Select[tuple[int]]:
    """Deliver a batch; see `deliver.sql`. Parameters in the order of their mention."""
    return select(
        schema.call(
            "deliver",
            bindparam("batch", type_=BigInteger),
            bindparam("addresses", type_=ARRAY(Text)),
            bindparam("channels", type_=ARRAY(Text)),
            bindparam("payloads", type_=ARRAY(LargeBinary)),
            bindparam("expiry_seconds", type_=Float(53)),
            bindparam("repeated", type_=Boolean),
        )
    )


def remove_all_messages(schema: Schema, prefix: str) -> Executable:
    """Delete every message of a prefix."""
    address = schema.message.c.address
    return delete(schema.message).where(func.split_part(address, ":", 2) == prefix)
