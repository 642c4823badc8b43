"""Statements about work queues: channels without '!', for whose messages all processes compete."""

from typing import Any

from sqlalchemy import BigInteger, Float, Integer, LargeBinary, Select, Text, bindparam, column, select

from pgchannels.database.tables import Schema


def claim(schema: Schema) -> Select[Any]:
    """Take messages from the front of a queue; no other process gets them. See `claim.sql`.

    The parameters are in the order below. The first columns are those of an `Arrival`, the last is `lost`.
    """
    claimed = schema.call(
        "claim",
        bindparam("claim_id", type_=BigInteger),
        bindparam("valid_until", type_=Float(53)),
        bindparam("address", type_=Text),
        bindparam("most", type_=Integer),
    ).table_valued(
        column("id", BigInteger),
        column("published_microseconds", BigInteger),
        column("address", Text),
        column("channel", Text),
        column("payload", LargeBinary),
        column("lost", BigInteger),
    )
    return select(*claimed.c)
