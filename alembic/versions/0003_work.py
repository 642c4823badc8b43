"""Work on messages of queues that is acknowledged; a message to a queue wakes one node that waits for it."""

from pathlib import Path

import sqlalchemy as sa
from alembic import context, op

from pgchannels.database.leftovers import dropping_functions
from pgchannels.database.losses import refusing_losses

revision = "0003"
down_revision = "0002"

NEW_FUNCTIONS = (
    "wake",
    "wake_another",
    "take_turns",
    "leave_token",
    "end_work",
    "open_work",
    "has_new_work",
    "note_open_work",
    "give_back",
    "give_back_abandoned",
    "take",
    "carry_work",
    "end_listening",
)
CHANGED_FUNCTIONS = (
    "claim",
    "deliver",
    "carry_queues",
    "send",
    "enqueue",
    "expiry_of_message",
    "deliver_transactions",
    "keep_topics",
    "plain_envelope",
    "publish",
    "publish_row_change",
    "publish_row_changes",
    "stop_row_changes",
    "listen",
    "remove_nodes",
)
CHANGED_SINCE = "0001"
CHANGED_VIEW = "queue_status"

# Roles that may claim may also do what is new; those of the version before would fail without it.
GRANT = """
DO $$
DECLARE
    grantee text;
    function regprocedure;
BEGIN
    FOR grantee IN
        SELECT DISTINCT quote_ident(pg_get_userbyid(given.grantee))
        FROM pg_catalog.pg_proc AS p, LATERAL pg_catalog.aclexplode(p.proacl) AS given
        WHERE p.oid = '{schema}.claim(bigint, double precision, text, integer)'::regprocedure
          AND given.privilege_type = 'EXECUTE' AND given.grantee NOT IN (0, p.proowner)
    LOOP
        EXECUTE format('GRANT UPDATE ON {schema}.subscription TO %s', grantee);
        FOR function IN
            SELECT p.oid FROM pg_catalog.pg_proc AS p
            WHERE p.pronamespace = '{schema}'::regnamespace AND p.proname IN ({functions})
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', function, grantee);
        END LOOP;
    END LOOP;
END
$$
"""
# As late as can be, since everybody waits behind it; in the order in which heartbeats and sends lock them.
LOCK = "LOCK TABLE {schema}.outbox, {schema}.lease, {schema}.message, {schema}.subscription IN ACCESS EXCLUSIVE MODE"
# Jumps from address to address, however long the log is.
GIVE_BACK = """
WITH RECURSIVE numbered AS (
    SELECT '' AS address
    UNION ALL
    SELECT (
        SELECT m.address FROM {schema}.message AS m
        WHERE m.number IS NOT NULL AND m.address > numbered.address ORDER BY m.address LIMIT 1
    )
    FROM numbered WHERE numbered.address IS NOT NULL
)
SELECT {schema}.give_back(worked.queue, array_agg(w.number), array_agg(w.id), array_agg(false))
FROM (
    SELECT 'queue' || substr(n.address, 8) AS queue FROM numbered AS n WHERE starts_with(n.address, 'working:')
) AS worked
CROSS JOIN LATERAL {schema}.open_work(worked.queue) AS w
GROUP BY worked.queue
"""


def upgrade() -> None:
    """Add what is new, and let the roles that use the log use it; everybody waits while the columns are added."""
    schema = context.config.attributes["schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote_schema(schema)
    op.execute(dropping_functions(quoted, NEW_FUNCTIONS))
    for name in (*NEW_FUNCTIONS, *CHANGED_FUNCTIONS, CHANGED_VIEW):
        op.execute(_definition(revision, name).replace("{schema}", quoted))
    functions = ", ".join(f"'{name}'" for name in NEW_FUNCTIONS)
    for name in NEW_FUNCTIONS:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {quoted}.{name} FROM PUBLIC")
    op.execute(GRANT.replace("{schema}", quoted).replace("{functions}", functions))
    op.execute(LOCK.replace("{schema}", quoted))
    op.add_column("message", sa.Column("attempts", sa.Integer), schema=schema, if_not_exists=True)
    for table in ("message", "outbox"):
        op.add_column(table, sa.Column("has_own_expiry", sa.Boolean), schema=schema, if_not_exists=True)
    op.add_column(
        "subscription",
        sa.Column("takes_turns", sa.Boolean, nullable=False, server_default=sa.false()),
        schema=schema,
        if_not_exists=True,
    )
    op.create_index("lease_address_idx", "lease", ["address"], schema=schema, if_not_exists=True)


def downgrade() -> None:
    """Let functions do what they did. Messages under work go back to their queues; what is done is not acknowledged.

    The columns, the new functions and the view stay, see `pgchannels.database.leftovers`.
    """
    schema = context.config.attributes["schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote_schema(schema)
    for name in CHANGED_FUNCTIONS:
        before = _definition(CHANGED_SINCE, name).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
        op.execute(before.replace("{schema}", quoted))
    op.execute(refusing_losses(Path(__file__).parents[1], quoted, revision=revision, target=down_revision))
    op.execute(GIVE_BACK.replace("{schema}", quoted))


def _definition(revision: str, name: str) -> str:
    return (Path(__file__).parents[1] / "sql" / revision / f"{name}.sql").read_text()
