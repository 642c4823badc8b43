"""Statements that read the log."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnClause,
    ColumnElement,
    DateTime,
    Float,
    FromClause,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    cast,
    column,
    extract,
    func,
    literal_column,
    select,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import UserDefinedType

from pgchannels.database.tables import Schema

PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 2 * 1024 * 1024
# The most of one payload that a statement returns.
SLICE_BYTES: Final = 1024 * 1024


class _Xid(UserDefinedType[Any]):
    """The database's type for a transaction, without its epoch."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid"


_XID: Final = _Xid()

# A row that others wrote can hold times that Python's datetime cannot.
_EARLIEST: Final = text("'epoch'::timestamptz")
_LATEST: Final = text("'9999-12-31'::timestamptz")


def messages_after(schema: Schema) -> Select[Any]:
    """Return a page: the next messages of each address after its position, in the order of ids, and the log's extent.

    Parameters: whether it is a replay, addresses, their positions, the greatest id, the most rows of each address, the
    most rows. In a replay, messages without an expiry of their own count as expired only when the retention of the
    database or the topic has passed as well. Beyond the first row, a page has at most `PAGE_BYTES` of payload. A
    payload longer than `SLICE_BYTES` is cut to that; `size` is its full size. Expired messages have no payload. A page
    without messages is one row without an id; no row means that there is no log.

    The rows and the extent show the same moment: the locks that keep slots from being emptied are taken before it.
    """
    message, state = schema.message, schema.log_state
    is_replay = bindparam("is_replay", type_=Boolean)
    wanted = (
        func.unnest(bindparam("addresses", type_=ARRAY(Text)), bindparam("ids", type_=ARRAY(BigInteger)))
        .table_valued("address", "id")
        .render_derived(name="wanted")
    )
    found = (
        select(message)
        .where(message.c.address == wanted.c.address, message.c.id > wanted.c.id)
        .where(message.c.id <= bindparam("up_to", type_=BigInteger))
        .order_by(message.c.id)
        .limit(bindparam("most_of_each", type_=BigInteger))
        .lateral()
    )
    readable_until = case((is_replay, _replayed_until(schema, found)), else_=found.c.expires_at)
    page = (
        select(found, readable_until.label("readable_until"))
        .join_from(wanted, found, true())
        .order_by(found.c.id)
        .limit(bindparam("most", type_=BigInteger))
        .subquery()
    )
    brought = _bytes_brought(page)
    bytes_before = func.sum(brought).over(order_by=page.c.id, rows=(None, 0)) - brought
    measured = select(page, bytes_before.label("bytes_before")).subquery()
    rows = select(*_columns(measured)).where(measured.c.bytes_before < _constant(PAGE_BYTES)).subquery()
    last_id = select(schema.last_id).scalar_subquery().label("last_id")
    extent_now = [state.c.identity, state.c.filled_until, state.c.gone_until, last_id]
    return select(*rows.c, *extent_now).join_from(state, rows, true(), isouter=True).order_by(rows.c.id)


def rest_of_message(schema: Schema) -> Select[Any]:
    """Return a slice of a payload. Parameters: the address, the id, the first byte (counted from 1)."""
    message = schema.message
    rest = func.substr(message.c.payload, bindparam("begin", type_=Integer), _constant(SLICE_BYTES))
    return select(rest).where(
        message.c.address == bindparam("address", type_=Text), message.c.id == bindparam("id", type_=BigInteger)
    )


def position_before_latest(schema: Schema) -> Select[Any]:
    """Return the id of the oldest of the latest messages of an address.

    Parameters: the address, the greatest id, how many messages.
    """
    message = schema.message
    latest = (
        select(message.c.id)
        .where(message.c.address == bindparam("address", type_=Text))
        .where(_replayed_until(schema, message) > func.now())
        .where(message.c.id <= bindparam("up_to", type_=BigInteger))
        .order_by(message.c.id.desc())
        .limit(bindparam("count", type_=BigInteger))
        .subquery()
    )
    return select(func.min(latest.c.id))


def find_time(schema: Schema) -> Select[Any]:
    """Return each address with the two ids of `find_time.sql`, which are NULL if there is no log.

    Parameters: addresses, the time, how many seconds ago if the time is NULL.
    """
    wanted = (
        func.unnest(bindparam("addresses", type_=ARRAY(Text))).table_valued("address").render_derived(name="wanted")
    )
    duration = interval(bindparam("seconds_ago", type_=Float(53)))
    time = func.coalesce(bindparam("time", type_=DateTime(timezone=True)), func.now() - duration)
    found = (
        schema.call("find_time", wanted.c.address, time)
        .table_valued(column("last_before", BigInteger), column("begin_after", BigInteger))
        .lateral()
    )
    return select(wanted.c.address, *found.c).join_from(wanted, found, true())


def gone(schema: Schema) -> Select[Any]:
    """Return, for each address, up to which id messages may have left the log; see `gone.sql`. Parameter: addresses."""
    gone = schema.call("gone", bindparam("addresses", type_=ARRAY(Text))).table_valued(
        column("address", Text), column("gone_until", BigInteger)
    )
    return select(gone.c.address, gone.c.gone_until)


def position(schema: Schema) -> Select[Any]:
    """Return where a topic stands, as the text of a position; see `position.sql`. Parameters: the topic, the prefix."""
    return select(schema.call("position", bindparam("topic", type_=Text), bindparam("prefix", type_=Text)))


def extent(schema: Schema) -> Select[Any]:
    """Return the extent of the log, in one row; see `extent.sql`."""
    found = schema.call("extent").table_valued(*extent_columns())
    return select(*found.c)


def look(schema: Schema) -> Select[Any]:
    """Return whether a transaction has left messages, the oldest transaction that runs, the next one, and the extent.

    All transactions before the oldest had ended when the statement began; those from the next one on had not begun.
    """
    found = schema.call("extent").table_valued(*extent_columns())
    oldest = func.pg_snapshot_xmin(func.pg_current_snapshot())
    # Not the end of the snapshot: that is beyond the last that has ended, and others beyond it may run.
    distance = func.age(cast(oldest, _XID))
    return select(select(schema.undelivered).exists(), _number(oldest), _number(oldest) + distance, *found.c)


def _number(transaction: ColumnElement[Any]) -> ColumnElement[int]:
    return cast(cast(transaction, Text), BigInteger)


def interval(seconds: ColumnElement[float]) -> ColumnElement[Any]:
    """Return so many seconds as an interval; not as days, since some are short."""
    return func.make_interval(*[_constant(0)] * 6, seconds)


def extent_columns() -> list[ColumnClause[Any]]:
    """Return the columns of `extent`."""
    numbers = ("began_at", "filled_until", "gone_until", "last_id")
    return [
        column("identity", BigInteger),
        column("identity_from", BigInteger),
        column("former", ARRAY(BigInteger)),
        *(column(number, BigInteger) for number in numbers),
    ]


def _replayed_until(schema: Schema, message: FromClause) -> ColumnElement[Any]:
    kept_until = message.c.published_at + _retention(schema, message.c.address)
    lasts = func.greatest(message.c.expires_at, kept_until)
    return case((message.c.has_own_expiry, message.c.expires_at), else_=lasts)


def _retention(schema: Schema, address: ColumnElement[str]) -> ColumnElement[Any]:
    kept = schema.kept_topic
    begins_so = kept.c.is_pattern & func.starts_with(address, kept.c.address)
    longer = select(func.max(kept.c.retention)).where((kept.c.address == address) | begins_so).scalar_subquery()
    return func.greatest(select(schema.log.c.chosen).scalar_subquery(), longer)


def _columns(message: FromClause) -> list[ColumnElement[Any]]:
    size = func.octet_length(message.c.payload)
    begun = func.substr(message.c.payload, _constant(1), _constant(SLICE_BYTES))
    payload = case((size > _constant(SLICE_BYTES), begun), else_=message.c.payload)
    return [
        message.c.id,
        _microseconds(message.c.published_at).label("published_microseconds"),
        message.c.address,
        message.c.channel,
        case((message.c.readable_until > func.now(), payload)).label("payload"),
        size.label("size"),
        _microseconds(message.c.readable_until).label("expires_microseconds"),
    ]


def _microseconds(moment: ColumnElement[Any]) -> ColumnElement[int]:
    possible = func.least(func.greatest(moment, _EARLIEST), _LATEST)
    return cast(extract("epoch", possible) * _constant(1_000_000), BigInteger)


def _bytes_brought(message: FromClause) -> ColumnElement[Any]:
    size = func.octet_length(message.c.payload)
    return case((message.c.readable_until > func.now(), func.least(size, _constant(SLICE_BYTES))), else_=_constant(0))


def _constant(number: int) -> ColumnElement[int]:
    return literal_column(str(number), Integer)  # not a parameter
