"""Statements about work queues: channels without '!', for whose messages all processes compete."""

from sqlalchemy import BigInteger, Executable, Float, Integer, LargeBinary, Text, column, literal, select

from pgchannels.database.tables import Schema


def claim(schema: Schema, claim_id: int, address: str, *, most: int, valid_until: float) -> Executable:
    """Take up to `most` messages from the front of a queue; no other process gets them. See `claim.sql`."""
    claimed = schema.call(
        "claim",
        literal(claim_id, BigInteger),
        literal(valid_until, Float(53)),
        literal(address, Text),
        literal(most, Integer),
    ).table_valued(
        column("id", BigInteger),
        column("published_microseconds", BigInteger),
        column("address", Text),
        column("channel", Text),
        column("payload", LargeBinary),
        column("lost", BigInteger),
    )
    return select(*claimed.c)
