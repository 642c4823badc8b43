"""Statements about work queues: channels without '!', for whose messages all processes compete."""

from sqlalchemy import BigInteger, Executable, cast, delete, extract, func, select

from pgchannels.database.tables import Schema


def claim(schema: Schema, address: str, *, limit: int) -> Executable:
    """Take up to `limit` messages from the front of a queue; no other process gets them."""
    message = schema.message
    front = (
        select(message.c.slot, message.c.id)
        .where(message.c.address == address, message.c.expires_at > func.now())
        .order_by(message.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("front")
    )
    return (
        delete(message)
        .where(message.c.address == address, message.c.slot == front.c.slot, message.c.id == front.c.id)
        .returning(
            message.c.id,
            cast(extract("epoch", message.c.published_at) * 1_000_000, BigInteger).label("published_microseconds"),
            message.c.address,
            message.c.channel,
            message.c.payload,
        )
    )
