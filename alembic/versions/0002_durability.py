"""The durability of the log can be chosen: logged slots outlive a crash and a failover."""

from pathlib import Path

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

from pgchannels.database.leftovers import dropping_functions
from pgchannels.database.losses import refusing_losses

revision = "0002"
down_revision = "0001"

NEW = (
    "mend_sequence",
    "is_logged",
    "turn_slot",
    "turn_outbox",
    "unused_slots",
    "save_state",
    "last_id_in",
    "recover_log",
    "clear_slots",
)
CHANGED = ("start_epoch", "extent", "make_slot", "empty_slot", "rotate")
VIEW = "log_status"


def upgrade() -> None:
    """Add what is needed to choose; the log stays fast, and no table is locked that anybody uses."""
    schema, quoted = _schema()
    op.execute(dropping_functions(quoted, NEW))
    op.create_table(
        "durability",
        sa.Column("chosen", sa.Text),
        sa.Column("state", postgresql.JSONB),
        sa.Column("filled", postgresql.JSONB),
        sa.Column("kept", postgresql.JSONB),
        sa.PrimaryKeyConstraint("chosen", name="durability_pkey"),
        schema=schema,
        if_not_exists=True,
    )
    op.execute(f"DELETE FROM {quoted}.durability")  # what a downgrade has left
    op.execute(f"INSERT INTO {quoted}.durability (chosen) VALUES ('fast')")
    for name in (*NEW, *CHANGED, VIEW):
        op.execute(_definition(revision, name).replace("{schema}", quoted))
    for name in NEW:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {quoted}.{name} FROM PUBLIC")


def downgrade() -> None:
    """Make the log fast, and go back; the messages stay, but a crash takes all of them.

    The new functions and their table stay, see `pgchannels.database.leftovers`.
    """
    _, quoted = _schema()
    op.execute(refusing_losses(Path(__file__).parents[1], quoted, revision=revision, target=down_revision))
    for name in CHANGED:
        definition = _definition("0001", name).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
        op.execute(definition.replace("{schema}", quoted))
    view = _definition("0001", VIEW).replace("{schema}", quoted)
    op.execute(_REPLACE_VIEW.replace("{schema}", quoted).replace("{view}", view))
    op.execute(f"UPDATE {quoted}.durability SET chosen = 'fast'")
    op.execute(_MAKE_UNLOGGED.replace("{schema}", quoted))


_MAKE_UNLOGGED = """
DO $$
DECLARE
    logged regclass;
BEGIN
    FOR logged IN
        SELECT oid FROM pg_catalog.pg_class WHERE relpersistence = 'p' AND relkind = 'r' AND (
            oid IN ('{schema}.outbox'::regclass, '{schema}.undelivered'::regclass)
            OR oid IN (SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = '{schema}.message'::regclass)
        )
    LOOP
        EXECUTE format('ALTER TABLE %s SET UNLOGGED', logged);
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', logged);
    END LOOP;
END
$$
"""
# A view cannot lose columns: it is dropped, and those who read it may read the next one.
_REPLACE_VIEW = """
DO $do$
DECLARE
    reader text;
    readers text[] := ARRAY(
        SELECT DISTINCT r.rolname::text
        FROM pg_catalog.pg_class AS c
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
        JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
        WHERE c.oid = '{schema}.log_status'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
    );
BEGIN
    DROP VIEW {schema}.log_status;
    {view};
    FOREACH reader IN ARRAY readers LOOP
        EXECUTE format('GRANT SELECT ON {schema}.log_status TO %I', reader);
    END LOOP;
END
$do$
"""


def _schema() -> tuple[str, str]:
    schema = context.config.attributes["schema"]
    return schema, op.get_context().dialect.identifier_preparer.quote_schema(schema)


def _definition(of_revision: str, name: str) -> str:
    return (Path(__file__).parents[1] / "sql" / of_revision / f"{name}.sql").read_text()
