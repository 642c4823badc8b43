"""The tables of one pgchannels schema, as the revisions in `alembic/` make them."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    TableClause,
    Text,
    Uuid,
    column,
    literal_column,
    table,
)
from sqlalchemy.dialects.postgresql import OID
from sqlalchemy.sql.functions import Function

LARGEST_BATCH = 512  # messages a call of deliver(): ids come from the sequence in blocks of this size

# For people: no node's id is in them.
VIEWS = ("node_status", "group_status", "queue_status", "log_status")

_NAMING_CONVENTION = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "pk": "%(table_name)s_pkey",
}


class Schema:
    """One schema of one database: its tables, and its functions by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.metadata: MetaData = MetaData(schema=name, naming_convention=_NAMING_CONVENTION)
        self.log: Table = _log(self.metadata)
        self.log_state: Table = _log_state(self.metadata)
        self.stripe: Table = _stripe(self.metadata)
        self.filled_slot: Table = _filled_slot(self.metadata)
        self.message: Table = _message(self.metadata)
        self.node: Table = _node(self.metadata)
        self.subscription: Table = _subscription(self.metadata)
        self.full_channel: Table = _full_channel(self.metadata)
        self.member: Table = _member(self.metadata)
        # A sequence is read as a table is; it is none of the metadata.
        sequence: TableClause = table("message_id", column("last_value", BigInteger), schema=name)
        self.last_id: ColumnElement[int] = sequence.c.last_value + literal_column(str(LARGEST_BATCH - 1), Integer)

    def call(self, function_name: str, *arguments: Any) -> Function[Any]:
        """A call of one of the schema's own functions."""
        # Not by attributes of `func`: these take an underscore at the end of a schema's name off.
        return Function(function_name, *arguments, packagenames=(self.name,))


@lru_cache(maxsize=64)
def schema_named(name: str) -> Schema:
    """The schema of this name, made once: every node of a process needs it, and it takes some milliseconds."""
    return Schema(name)


def _log(metadata: MetaData) -> Table:
    """One row that outlives a crash: how often the log began anew, and how long it keeps messages."""
    return Table(
        "log",
        metadata,
        Column("epoch", Integer, primary_key=True, autoincrement=False),
        Column("retention", Interval, nullable=False),
    )


def _log_state(metadata: MetaData) -> Table:
    """One row that a crash removes together with the messages: the slot that takes new ones.

    This log has ids from `began_at` on. All up to `filled_until` are in the slots before this one; messages with ids up
    to `gone_until` may have left it. `identity` is no other log's: see `start_epoch.sql`. `former` has the identities
    that it had before, each with its first and its last id.
    """
    return Table(
        "log_state",
        metadata,
        Column("slot", SmallInteger, nullable=False),
        Column("rotated_at", DateTime(timezone=True), nullable=False),
        Column("began_at", BigInteger, nullable=False),
        Column("filled_until", BigInteger, nullable=False),
        Column("gone_until", BigInteger, nullable=False),
        Column("identity", BigInteger, nullable=False),
        Column("identity_from", BigInteger, nullable=False),
        Column("former", ARRAY(BigInteger), nullable=False),
        Column("server_started_at", DateTime(timezone=True), nullable=False),
        Column("file", Text, nullable=False),
        Column("filenode", OID, nullable=False),
        prefixes=["UNLOGGED"],
    )


def _stripe(metadata: MetaData) -> Table:
    """The locks of senders and receivers: each address has one of these rows, by its hash; see `lock_addresses.sql`."""
    return Table(
        "stripe",
        metadata,
        Column("number", SmallInteger, primary_key=True, autoincrement=False),
        prefixes=["UNLOGGED"],
    )


def _filled_slot(metadata: MetaData) -> Table:
    """The slots that were current until `filled_at`, and are not empty again; they hold no id after `last_id`."""
    return Table(
        "filled_slot",
        metadata,
        Column("slot", SmallInteger, primary_key=True, autoincrement=False),
        Column("filled_at", DateTime(timezone=True), nullable=False),
        Column("last_id", BigInteger, nullable=False),
        prefixes=["UNLOGGED"],
    )


def _message(metadata: MetaData) -> Table:
    """The log, in slots `message_0` … that are unlogged partitions, emptied by TRUNCATE in turn.

    `batch` is on the first row of a batch, and on each claim. `number` counts the messages of a queue. A claim is a row
    whose address is that of its queue with `claimed:` in place of `queue:`; its number is that of the last one claimed.
    A batch of which some messages were refused, or copies dropped, has its number on a row with the address `outcome:`
    instead: `channel` has the refused ones as an array, `number` the count of the dropped. A row of a queue without a
    payload stands for a message that has left the log unclaimed.
    """
    message = Table(
        "message",
        metadata,
        Column("slot", SmallInteger, nullable=False),
        Column("id", BigInteger, nullable=False),
        Column("batch", BigInteger),
        Column("address", Text, nullable=False),
        Column("channel", Text),
        Column("number", BigInteger),
        Column("payload", LargeBinary, nullable=False),
        Column("published_at", DateTime(timezone=True), nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
        postgresql_partition_by="LIST (slot)",
    )
    Index(None, message.c.address, message.c.id)
    Index(None, message.c.address, message.c.number, postgresql_where=message.c.number.is_not(None))
    # In one slot no number is there twice, whichever calls it comes by.
    Index(None, message.c.batch, message.c.slot, unique=True, postgresql_where=message.c.batch.is_not(None))
    return message


def _node(metadata: MetaData) -> Table:
    """The running nodes; one whose lease has ended is gone. The id is also what the node listens on.

    A node has forgotten all that came before the message with the id `flushed_until`. `version` grows with each call
    that ends subscriptions of it. `pid` is of the session by which it listens, which began at `session_began_at`:
    process IDs are used again. `host`, `process_id` and `process` say where the node runs.
    """
    node = Table(
        "node",
        metadata,
        Column("id", Uuid, primary_key=True),
        Column("name", Text, nullable=False, unique=True),
        Column("leased_until", DateTime(timezone=True), nullable=False),
        Column("flushed_until", BigInteger, nullable=False, server_default="0"),
        Column("version", BigInteger, nullable=False, server_default="0"),
        Column("pid", Integer, nullable=False, server_default="0"),
        Column("session_began_at", DateTime(timezone=True)),
        Column("host", Text, nullable=False, server_default=""),
        Column("process_id", Integer, nullable=False, server_default="0"),
        Column("process", Text, nullable=False, server_default=""),
        prefixes=["UNLOGGED"],
    )
    Index(None, node.c.leased_until)
    return node


def _subscription(metadata: MetaData) -> Table:
    """Which nodes are told about messages to an address."""
    subscription = Table(
        "subscription",
        metadata,
        Column("address", Text, primary_key=True),
        Column("node", Uuid, primary_key=True),
        prefixes=["UNLOGGED"],
    )
    Index(None, subscription.c.node)
    return subscription


def _full_channel(metadata: MetaData) -> Table:
    """The channels whose node has no room for more messages; one that ends with '!' stands for all that begin so."""
    return Table(
        "full_channel",
        metadata,
        Column("channel", Text, primary_key=True),
        Column("node", Uuid, nullable=False),
        prefixes=["UNLOGGED"],
    )


def _member(metadata: MetaData) -> Table:
    """The queues that get a copy of every message to a topic, while fewer than `capacity` wait in them.

    `expires_at` is when they no longer do, or NULL.
    """
    return Table(
        "member",
        metadata,
        Column("topic", Text, primary_key=True),
        Column("queue", Text, primary_key=True),
        Column("capacity", Integer, nullable=False),
        Column("expires_at", DateTime(timezone=True)),
    )
