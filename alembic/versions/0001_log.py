"""The log, who hosts which address, the functions that deliver, and views for people."""

from pathlib import Path

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

from pgchannels.database.leftovers import dropping_functions
from pgchannels.database.losses import refusing_losses

revision = "0001"
down_revision = None

FUNCTIONS = (
    "refuse_late_call",
    "start_epoch",
    "extent",
    "gone",
    "find_time",
    "topic_address",
    "position",
    "lock_addresses",
    "told",
    "number_queued",
    "ids_of_keys",
    "deliver",
    "claim",
    "host",
    "end_session",
    "remove_nodes",
    "listen",
    "probe",
    "keep_messages_for",
    "beat",
    "make_slot",
    "empty_slot",
    "can_be_emptied",
    "carry_queues",
    "keep_topics",
    "note_gone",
    "empty_kept_slots",
    "keep_topics_for",
    "rotate",
    "outbox_database",
    "enqueue",
    "notification_parts",
    "lock_outbox",
    "deliver_transactions",
    "deliver_outbox",
    "deliver_undelivered",
    "plain_envelope",
    "expiry_of_message",
    "publish",
    "publish_many",
    "send",
    "topic_of_row",
    "publish_row_change",
    "publish_row_changes",
    "stop_row_changes",
)
VIEWS = ("node_status", "group_status", "queue_status", "log_status")
SLOTS = range(3)


def upgrade() -> None:
    """Make the tables and functions in the schema that the caller configured."""
    schema = context.config.attributes["schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote_schema(schema)
    _create_log(schema, quoted)
    _create_nodes(schema)
    _create_outbox(schema, quoted)
    for name in (*FUNCTIONS, *VIEWS):
        op.execute(_definition(name).replace("{schema}", quoted))
    op.execute(
        # ALWAYS: also where a session has put off other triggers, as replication does.
        f"CREATE CONSTRAINT TRIGGER deliver AFTER INSERT ON {quoted}.outbox DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW WHEN (NEW.is_first) EXECUTE FUNCTION {quoted}.deliver_outbox()"
    )
    op.execute(f"ALTER TABLE {quoted}.outbox ENABLE ALWAYS TRIGGER deliver")
    op.execute(f"REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {quoted} FROM PUBLIC")


def downgrade() -> None:
    """Remove all that `upgrade` made; the schema itself and the version table stay."""
    schema = context.config.attributes["schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote_schema(schema)
    op.execute(refusing_losses(Path(__file__).parents[1], quoted, revision=revision, target="base"))
    op.execute(dropping_functions(quoted, _made_later()))
    op.drop_table("durability", schema=schema, if_exists=True)
    for name in reversed(VIEWS):
        op.execute(f"DROP VIEW {quoted}.{name}")
    op.drop_table("outbox", schema=schema)
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {quoted}.{name}")
    for table in (
        "undelivered",
        "member",
        "full_channel",
        "subscription",
        "node",
        "lease",
        "message",
        "kept_topic",
        "kept_slot",
        "filled_slot",
        "stripe",
        "log_state",
        "log",
    ):
        op.drop_table(table, schema=schema)
    op.execute(f"DROP SEQUENCE {quoted}.message_id")


def _create_log(schema: str, quoted: str) -> None:
    op.create_table(
        "log",
        sa.Column("epoch", sa.Integer, autoincrement=False),
        sa.Column("retention", sa.Interval, nullable=False),
        sa.Column("database", sa.Uuid, nullable=False, server_default=sa.text("gen_random_uuid()")),
        sa.Column("chosen", sa.Interval, nullable=False),
        sa.Column("needed", sa.Interval, nullable=False),
        sa.Column("needed_before", sa.Interval, nullable=False),
        sa.Column("term_began_at", sa.DateTime(timezone=True), nullable=False),
        # A publication FOR ALL TABLES refuses updates of a table without a key.
        sa.PrimaryKeyConstraint("epoch", name="log_pkey"),
        schema=schema,
    )
    op.execute(
        f"INSERT INTO {quoted}.log (epoch, retention, chosen, needed, needed_before, term_began_at)"
        " VALUES (0, '0', '0', '0', '0', pg_catalog.now())"
    )
    op.create_table(
        "log_state",
        sa.Column("slot", sa.SmallInteger, nullable=False),
        sa.Column("rotated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("lost_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filled_until", sa.BigInteger, nullable=False),
        sa.Column("gone_until", sa.BigInteger, nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept_gone_until", sa.BigInteger, nullable=False),
        sa.Column("kept_gone_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("identity", sa.BigInteger, nullable=False),
        sa.Column("identity_from", sa.BigInteger, nullable=False),
        sa.Column("former", sa.ARRAY(sa.BigInteger), nullable=False),
        sa.Column("server_started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("filenode", postgresql.OID, nullable=False),
        sa.Column("swept_until", sa.BigInteger, nullable=False, server_default="0"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "stripe",
        sa.Column("number", sa.SmallInteger, autoincrement=False),
        sa.PrimaryKeyConstraint("number", name="stripe_pkey"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "filled_slot",
        sa.Column("slot", sa.SmallInteger, autoincrement=False),
        sa.Column("filled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_id", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("slot", name="filled_slot_pkey"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "kept_topic",
        sa.Column("address", sa.Text),
        sa.Column("is_pattern", sa.Boolean),
        sa.Column("retention", sa.Interval, nullable=False),
        sa.Column("gone_until", sa.BigInteger, nullable=False),
        sa.Column("gone_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("address", "is_pattern", name="kept_topic_pkey"),
        schema=schema,
    )
    op.create_table(
        "kept_slot",
        sa.Column("slot", sa.SmallInteger, autoincrement=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("filled_at", sa.DateTime(timezone=True)),
        sa.Column("last_id", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("slot", name="kept_slot_pkey"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.execute(f"CREATE UNLOGGED SEQUENCE {quoted}.message_id INCREMENT BY 512")
    op.create_table(
        "message",
        sa.Column("slot", sa.SmallInteger, nullable=False),
        sa.Column("id", sa.BigInteger, nullable=False),
        sa.Column("batch", sa.BigInteger),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("channel", sa.Text),
        sa.Column("number", sa.BigInteger),
        sa.Column("key", sa.Text),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        schema=schema,
        postgresql_partition_by="LIST (slot)",
    )
    # Large payloads are mostly packed or sealed already: compressing them again costs time and gains nothing.
    op.execute(f"ALTER TABLE {quoted}.message ALTER COLUMN payload SET STORAGE EXTERNAL")
    op.create_index("message_address_id_idx", "message", ["address", "id"], schema=schema)
    op.create_index(
        "message_address_number_idx",
        "message",
        ["address", "number"],
        schema=schema,
        postgresql_where=sa.text("number IS NOT NULL"),
    )
    op.create_index(
        "message_batch_slot_idx",
        "message",
        ["batch", "slot"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("batch IS NOT NULL"),
    )
    op.create_index(
        "message_address_key_idx",
        "message",
        ["address", "key"],
        schema=schema,
        postgresql_where=sa.text("key IS NOT NULL"),
    )
    for slot in SLOTS:
        # TRUNCATE empties a slot: there is nothing in it for autovacuum to do.
        op.execute(
            f"CREATE UNLOGGED TABLE {quoted}.message_{slot} PARTITION OF {quoted}.message FOR VALUES IN ({slot})"
            " WITH (autovacuum_enabled = off)"
        )


def _create_nodes(schema: str) -> None:
    op.create_table(
        "node",
        sa.Column("id", sa.Uuid),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("flushed_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("pid", sa.Integer, nullable=False, server_default="0"),
        sa.Column("session_began_at", sa.DateTime(timezone=True)),
        sa.Column("host", sa.Text, nullable=False, server_default=""),
        sa.Column("process_id", sa.Integer, nullable=False, server_default="0"),
        sa.Column("process", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="node_pkey"),
        sa.UniqueConstraint("name", name="node_name_key"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.create_index("node_leased_until_idx", "node", ["leased_until"], schema=schema)
    op.create_table(
        "lease",
        sa.Column("node", sa.Uuid),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("node", name="lease_pkey"),
        schema=schema,
    )
    op.create_index("lease_leased_until_idx", "lease", ["leased_until"], schema=schema)
    op.create_table(
        "subscription",
        sa.Column("address", sa.Text),
        sa.Column("node", sa.Uuid),
        sa.PrimaryKeyConstraint("address", "node", name="subscription_pkey"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.create_index("subscription_node_idx", "subscription", ["node"], schema=schema)
    op.create_table(
        "full_channel",
        sa.Column("channel", sa.Text),
        sa.Column("node", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("channel", name="full_channel_pkey"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "member",
        sa.Column("topic", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("capacity", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("topic", "queue", name="member_pkey"),
        schema=schema,
    )


def _create_outbox(schema: str, quoted: str) -> None:
    op.create_table(
        "outbox",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True)),
        sa.Column("transaction", sa.BigInteger, nullable=False),
        sa.Column("is_first", sa.Boolean, nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True)),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("channel", sa.Text),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("capacity", sa.Integer),
        sa.Column("key", sa.Text),
        sa.Column("expiry_seconds", sa.Double, nullable=False),
        schema=schema,
        prefixes=["UNLOGGED"],
    )
    op.execute(f"ALTER TABLE {quoted}.outbox ALTER COLUMN payload SET STORAGE EXTERNAL")
    # Whatever their share: rows are deleted as soon as they are delivered.
    op.execute(
        f"ALTER TABLE {quoted}.outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,"
        " autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 1000000000)"
    )
    # A transaction's id is greater than those before it, so nothing reads past the dead rows of others.
    op.create_index("outbox_transaction_number_idx", "outbox", ["transaction", "number"], schema=schema)
    op.create_table(
        "undelivered",
        sa.Column("transaction", sa.BigInteger, autoincrement=False),
        sa.PrimaryKeyConstraint("transaction", name="undelivered_pkey"),
        schema=schema,
        prefixes=["UNLOGGED"],
    )


def _definition(name: str) -> str:
    return (Path(__file__).parents[1] / "sql" / revision / f"{name}.sql").read_text()


def _made_later() -> set[str]:
    """What later revisions made and their downgrades left."""
    return {path.stem for path in (Path(__file__).parents[1] / "sql").glob("*/*.sql")} - {*FUNCTIONS, *VIEWS}
