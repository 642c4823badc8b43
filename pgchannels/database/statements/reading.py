"""Statements that read the log."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
    FromClause,
    Select,
    Text,
    case,
    cast,
    column,
    extract,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY

from pgchannels.database.tables import Schema

PAGE_ROWS = 1000
PAGE_BYTES = 8 * 1024 * 1024


def messages_after(
    schema: Schema, positions: Mapping[str, int], *, up_to: int | None = None, limit: int = PAGE_ROWS
) -> Executable:
    """The next messages of each address after its position, a page, in the order of their ids.

    Those that have expired come without a payload.
    A page has at most `limit` rows and, beyond its first row, `PAGE_BYTES` of payload: an empty page is the end.
    """
    message = schema.message
    wanted = _pairs(list(positions), list(positions.values()))
    found = (
        select(message)
        .where(message.c.address == wanted.c.address, message.c.id > wanted.c.id)
        .where(message.c.id <= up_to if up_to is not None else true())
        .order_by(message.c.id)
        .limit(limit)
        .lateral()
    )
    return _page(select(found).join_from(wanted, found, true()).order_by(found.c.id).limit(limit).subquery())


def extent(schema: Schema) -> Select[tuple[int, int, int]]:
    """Where this log began, up to which id messages may have left it, and the greatest id so far: one row."""
    found = schema.call("extent").table_valued(
        column("began_at", BigInteger), column("gone_until", BigInteger), column("last_id", BigInteger)
    )
    return select(found.c.began_at, found.c.gone_until, found.c.last_id)


def messages_with_ids(schema: Schema, keys: Collection[tuple[str, int]]) -> Executable:
    """The messages with these addresses and ids, a page as of `messages_after`."""
    message = schema.message
    wanted = _pairs([address for address, _ in keys], [message_id for _, message_id in keys])
    found = (
        select(message)
        .where(message.c.address == wanted.c.address, message.c.id == wanted.c.id)
        .limit(1)  # keeps it a look-up for each: a join could read the whole log
        .lateral()
    )
    return _page(select(found).join_from(wanted, found, true()).subquery())


def latest_messages(schema: Schema, address: str, *, limit: int) -> Executable:
    """The last `limit` messages of an address, oldest first."""
    message = schema.message
    latest = (
        select(message)
        .where(message.c.address == address, message.c.expires_at > func.now())
        .order_by(message.c.id.desc())
        .limit(limit)
        .subquery()
    )
    return select(*_columns(latest)).order_by(latest.c.id)


def _pairs(addresses: list[str], ids: list[int]) -> FromClause:
    return (
        func.unnest(
            cast(literal(addresses, ARRAY(Text)), ARRAY(Text)), cast(literal(ids, ARRAY(BigInteger)), ARRAY(BigInteger))
        )
        .table_valued("address", "id")
        .render_derived(name="wanted")
    )


def _page(found: FromClause) -> Executable:
    bytes_before = func.sum(func.octet_length(found.c.payload)).over(order_by=found.c.id, rows=(None, -1))
    measured = select(found, bytes_before.label("bytes_before")).subquery()
    is_within = or_(measured.c.bytes_before.is_(None), measured.c.bytes_before < PAGE_BYTES)
    return select(*_columns(measured)).where(is_within).order_by(measured.c.id)


def _columns(message: FromClause) -> list[ColumnElement[Any]]:
    microseconds = cast(extract("epoch", message.c.published_at) * 1_000_000, BigInteger)
    return [
        message.c.id,
        microseconds.label("published_microseconds"),
        message.c.address,
        message.c.channel,
        case((message.c.expires_at > func.now(), message.c.payload)).label("payload"),
    ]
