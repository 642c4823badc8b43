"""The tables of one pgchannels schema, as the revisions in `alembic/` create them."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Identity,
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
    false,
    literal_column,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, OID
from sqlalchemy.sql.functions import Function

LARGEST_BATCH = 512  # messages per call of deliver(): ids are taken from the sequence in blocks of this size

# For people: they contain no node's id.
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
        self.durability: Table = _durability(self.metadata)
        self.stripe: Table = _stripe(self.metadata)
        self.filled_slot: Table = _filled_slot(self.metadata)
        self.kept_topic: Table = _kept_topic(self.metadata)
        self.kept_slot: Table = _kept_slot(self.metadata)
        self.message: Table = _message(self.metadata)
        self.node: Table = _node(self.metadata)
        self.lease: Table = _lease(self.metadata)
        self.subscription: Table = _subscription(self.metadata)
        self.full_channel: Table = _full_channel(self.metadata)
        self.member: Table = _member(self.metadata)
        self.outbox: Table = _outbox(self.metadata)
        self.undelivered: Table = _undelivered(self.metadata)
        # A sequence can be read like a table; it is not part of the metadata.
        sequence: TableClause = table("message_id", column("last_value", BigInteger), schema=name)
        self.last_id: ColumnElement[int] = sequence.c.last_value + literal_column(str(LARGEST_BATCH - 1), Integer)

    def call(self, function_name: str, *arguments: Any) -> Function[Any]:
        """Return a call of one of the schema's own functions."""
        # Not by attributes of `func`: they strip a trailing underscore from a schema's name.
        return Function(function_name, *arguments, packagenames=(self.name,))


@lru_cache(maxsize=64)
def schema_named(name: str) -> Schema:
    """Return the schema of this name, built once: every node of a process needs it, and it takes milliseconds."""
    return Schema(name)


def _log(metadata: MetaData) -> Table:
    """One row that survives a crash: how often the log began anew, and how long it keeps messages.

    The `retention` is the greatest of what was `chosen`, and of what layers `needed` in this term or in the one before
    it. Layers say what they need again in each term, so a layer that is gone counts for two terms at most.
    `database` tells this database from others with the same tables.
    """
    return Table(
        "log",
        metadata,
        Column("epoch", Integer, primary_key=True, autoincrement=False),
        Column("retention", Interval, nullable=False),
        Column("database", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
        Column("chosen", Interval, nullable=False),
        Column("needed", Interval, nullable=False),
        Column("needed_before", Interval, nullable=False),
        Column("term_began_at", DateTime(timezone=True), nullable=False),
    )


def _log_state(metadata: MetaData) -> Table:
    """One row that a crash removes, as it does unlogged slots: the slot that takes new messages.

    The ids of this log begin at `began_at`; what was lost with an earlier log was published at `lost_at` or before. All
    up to `filled_until` are in earlier slots; messages with ids up to `gone_until`, published at `gone_at` or before,
    may have left the log. Of topics that are kept for longer, `kept_gone_until` and `kept_gone_at` say this. No other
    log has its `identity`: see `start_epoch.sql`. `former` holds its earlier identities, each with its first and its
    last id, or with two entries, see `recover_log.sql`.
    Transactions before `swept_until` have left nothing in the outbox.
    """
    return Table(
        "log_state",
        metadata,
        Column("slot", SmallInteger, nullable=False),
        Column("rotated_at", DateTime(timezone=True), nullable=False),
        Column("began_at", BigInteger, nullable=False),
        Column("lost_at", DateTime(timezone=True), nullable=False),
        Column("filled_until", BigInteger, nullable=False),
        Column("gone_until", BigInteger, nullable=False),
        Column("gone_at", DateTime(timezone=True), nullable=False),
        Column("kept_gone_until", BigInteger, nullable=False),
        Column("kept_gone_at", DateTime(timezone=True), nullable=False),
        Column("identity", BigInteger, nullable=False),
        Column("identity_from", BigInteger, nullable=False),
        Column("former", ARRAY(BigInteger), nullable=False),
        Column("server_started_at", DateTime(timezone=True), nullable=False),
        Column("file", Text, nullable=False),
        Column("filenode", OID, nullable=False),
        Column("swept_until", BigInteger, nullable=False, server_default="0"),
        prefixes=["UNLOGGED"],
    )


def _durability(metadata: MetaData) -> Table:
    """One row that survives a crash: whether the log is to survive one as well, `durable` or `fast`.

    While new messages go into a logged slot, `state`, `filled` and `kept` hold the rows of `log_state`, `filled_slot`
    and `kept_slot`; see `save_state.sql` and `recover_log.sql`.
    """
    return Table(
        "durability",
        metadata,
        Column("chosen", Text, primary_key=True),
        Column("state", JSONB),
        Column("filled", JSONB),
        Column("kept", JSONB),
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
    """The slots that were current until `filled_at`, and are not yet emptied; they hold no id after `last_id`."""
    return Table(
        "filled_slot",
        metadata,
        Column("slot", SmallInteger, primary_key=True, autoincrement=False),
        Column("filled_at", DateTime(timezone=True), nullable=False),
        Column("last_id", BigInteger, nullable=False),
        prefixes=["UNLOGGED"],
    )


def _kept_topic(metadata: MetaData) -> Table:
    """The topics that are kept for longer than the retention of the log; with `is_pattern`, all that begin so.

    Of what was published before, messages up to `gone_until`, published at `gone_at` or before, may have left the log.
    """
    return Table(
        "kept_topic",
        metadata,
        Column("address", Text, primary_key=True),
        Column("is_pattern", Boolean, primary_key=True),
        Column("retention", Interval, nullable=False),
        Column("gone_until", BigInteger, nullable=False),
        Column("gone_at", DateTime(timezone=True), nullable=False),
    )


def _kept_slot(metadata: MetaData) -> Table:
    """The slots with messages of kept topics, each filled from `began_at` to `filled_at`; they hold no id after
    `last_id`.
    """
    return Table(
        "kept_slot",
        metadata,
        Column("slot", SmallInteger, primary_key=True, autoincrement=False),
        Column("began_at", DateTime(timezone=True), nullable=False),
        Column("filled_at", DateTime(timezone=True)),
        Column("last_id", BigInteger, nullable=False, server_default="0"),
        prefixes=["UNLOGGED"],
    )


def _message(metadata: MetaData) -> Table:
    """The log, in slots `message_0` …: partitions that are emptied in turn by TRUNCATE. They are unlogged or, for a
    durable log, logged.

    `channel` is the one that a message was sent to; for a message to a topic, the one that does not get it. A message
    with a `key` is delivered once, however often it is published. One that `has_own_expiry` is not replayed after it;
    this is NULL if the expiry is that of a layer, which is no limit to a replay.

    `batch` is set on the first row of a batch, and on each claim. `number` counts the messages of a queue. A claim is a
    row with the address of its queue, but `claimed:` in place of `queue:`; its number is that of the last message
    claimed. If messages of a batch were refused, or copies dropped, `batch` is set on a row with the address `outcome:`
    instead: `channel` holds the refused ones as an array, `number` the count of the dropped. A row of a queue without a
    payload stands for a message that left the log unclaimed. A row with the address `gone:` says what has left the log,
    see `note_gone.sql`.

    `attempts` is how often work on a message of a queue has failed, NULL if never. A row `working:`, with the number
    and the id of a message, says which node works on it (`channel`), until when (`expires_at`), and how many `attempts`
    it has; a row `done:` says that this has ended, and a row `open:` lists the work that had not: see `open_work.sql`.
    Rows `idle:` and `woken:` are tokens of nodes that wait, and which are used: see `wake.sql`.
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
        Column("key", Text),
        Column("payload", LargeBinary, nullable=False),
        Column("published_at", DateTime(timezone=True), nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False),
        Column("attempts", Integer),
        Column("has_own_expiry", Boolean),
        postgresql_partition_by="LIST (slot)",
    )
    Index(None, message.c.address, message.c.id)
    Index(None, message.c.address, message.c.number, postgresql_where=message.c.number.is_not(None))
    Index(None, message.c.address, message.c.key, postgresql_where=message.c.key.is_not(None))
    # No batch number is in one slot twice, whichever calls bring it.
    Index(None, message.c.batch, message.c.slot, unique=True, postgresql_where=message.c.batch.is_not(None))
    return message


def _node(metadata: MetaData) -> Table:
    """The running nodes; one whose lease has ended is gone. The node listens on its id.

    A node has forgotten everything before the message with the id `flushed_until`. `version` grows with each call that
    ends subscriptions of the node. `pid` belongs to the session in which it listens, which began at `session_began_at`;
    `-infinity` stands for no session, since it polls. `host`, `process_id` and `process` say where the node runs.
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


def _lease(metadata: MetaData) -> Table:
    """The leases of nodes, with the nodes' own addresses. They outlast a crash and a restart of the server, which empty
    `node`: a flush waits for nodes that are not back yet.
    """
    lease = Table(
        "lease",
        metadata,
        Column("node", Uuid, primary_key=True),
        Column("address", Text, nullable=False),
        Column("leased_until", DateTime(timezone=True), nullable=False),
    )
    Index(None, lease.c.leased_until)
    Index(None, lease.c.address)
    return lease


def _subscription(metadata: MetaData) -> Table:
    """Which nodes host an address: they are notified of messages to it.

    A node that `takes_turns` is notified of messages to this queue only while it has a token, see `wake.sql`.
    """
    subscription = Table(
        "subscription",
        metadata,
        Column("address", Text, primary_key=True),
        Column("node", Uuid, primary_key=True),
        Column("takes_turns", Boolean, nullable=False, server_default=false()),
        prefixes=["UNLOGGED"],
    )
    Index(None, subscription.c.node)
    return subscription


def _full_channel(metadata: MetaData) -> Table:
    """The channels whose node has no room for more messages; a name that ends with '!' stands for all that begin so."""
    return Table(
        "full_channel",
        metadata,
        Column("channel", Text, primary_key=True),
        Column("node", Uuid, nullable=False),
        prefixes=["UNLOGGED"],
    )


def _member(metadata: MetaData) -> Table:
    """The queues that get a copy of every message to a topic, while fewer than `capacity` wait in them.

    `expires_at` is when that ends, or NULL.
    """
    return Table(
        "member",
        metadata,
        Column("topic", Text, primary_key=True),
        Column("queue", Text, primary_key=True),
        Column("capacity", Integer, nullable=False),
        Column("expires_at", DateTime(timezone=True)),
    )


def _outbox(metadata: MetaData) -> Table:
    """What open transactions have published: a trigger moves it into the log at their commit, see `deliver_outbox.sql`.

    `number` is the order of the calls. `is_first` is set on one message of a transaction, which fires the trigger. What
    has `queued_at` is no message, and fires the trigger once more.
    """
    outbox = Table(
        "outbox",
        metadata,
        Column("number", BigInteger, Identity(always=True)),
        Column("transaction", BigInteger, nullable=False),
        Column("is_first", Boolean, nullable=False),
        Column("queued_at", DateTime(timezone=True)),
        Column("address", Text, nullable=False),
        Column("channel", Text),
        Column("payload", LargeBinary, nullable=False),
        Column("capacity", Integer),
        Column("key", Text),
        Column("expiry_seconds", Double, nullable=False),
        Column("has_own_expiry", Boolean),
        prefixes=["UNLOGGED"],
    )
    Index(None, outbox.c.transaction, outbox.c.number)
    return outbox


def _undelivered(metadata: MetaData) -> Table:
    """The committed transactions whose messages are still in the outbox, see `deliver_undelivered.sql`."""
    return Table(
        "undelivered",
        metadata,
        Column("transaction", BigInteger, primary_key=True, autoincrement=False),
        prefixes=["UNLOGGED"],
    )
