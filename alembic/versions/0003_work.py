"""Work on messages of queues that is acknowledged; a message to a queue wakes one node that waits for it."""

from pathlib import Path

import sqlalchemy as sa
from alembic import context, op

revision = "0003"
down_revision = "0002"

NEW_FUNCTIONS = (
    "wake",
    "wake_another",
    "leave_token",
    "end_work",
    "open_work",
    "has_new_work",
    "note_open_work",
    "give_back",
    "give_back_abandoned",
    "take",
    "carry_work",
)
CHANGED_FUNCTIONS = ("claim", "deliver", "carry_queues", "send")
CHANGED_SINCE = "0001"
VIEW = "queue_status"

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
GIVE_BACK = """
SELECT {schema}.give_back(worked.queue, array_agg(w.number), array_agg(w.id), array_agg(false))
FROM (
    SELECT DISTINCT 'queue' || substr(m.address, 8) AS queue FROM {schema}.message AS m
    WHERE starts_with(m.address, 'working:')
) AS worked
CROSS JOIN LATERAL {schema}.open_work(worked.queue) AS w
GROUP BY worked.queue
"""
# A view cannot lose columns: it is dropped, and those who read it may read the next one.
REPLACE_VIEW = """
DO $do$
DECLARE
    reader text;
    readers text[] := ARRAY(
        SELECT DISTINCT r.rolname::text
        FROM pg_catalog.pg_class AS c
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
        JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
        WHERE c.oid = '{schema}.queue_status'::regclass AND a.grantee <> c.relowner AND a.privilege_type = 'SELECT'
    );
BEGIN
    DROP VIEW {schema}.queue_status;
    {view};
    FOREACH reader IN ARRAY readers LOOP
        EXECUTE format('GRANT SELECT ON {schema}.queue_status TO %I', reader);
    END LOOP;
END
$do$
"""


def upgrade() -> None:
    """Add what is new, and let the roles that use the log use it."""
    schema = context.config.attributes["schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote_schema(schema)
    op.add_column("message", sa.Column("attempts", sa.Integer), schema=schema)
    op.add_column(
        "subscription",
        sa.Column("takes_turns", sa.Boolean, nullable=False, server_default=sa.false()),
        schema=schema,
    )
    op.create_index("lease_address_idx", "lease", ["address"], schema=schema)
    for name in (*NEW_FUNCTIONS, *CHANGED_FUNCTIONS, VIEW):
        op.execute(_definition(revision, name).replace("{schema}", quoted))
    functions = ", ".join(f"'{name}'" for name in NEW_FUNCTIONS)
    for name in NEW_FUNCTIONS:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {quoted}.{name} FROM PUBLIC")
    op.execute(GRANT.replace("{schema}", quoted).replace("{functions}", functions))


def downgrade() -> None:
    """Remove it. Messages that are under work go back to their queues; what is done with them is not acknowledged."""
    schema = context.config.attributes["schema"]
    quoted = op.get_context().dialect.identifier_preparer.quote_schema(schema)
    op.execute(GIVE_BACK.replace("{schema}", quoted))
    view = _definition(CHANGED_SINCE, VIEW).replace("{schema}", quoted)
    op.execute(REPLACE_VIEW.replace("{schema}", quoted).replace("{view}", view))
    for name in CHANGED_FUNCTIONS:
        before = _definition(CHANGED_SINCE, name).replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")
        op.execute(before.replace("{schema}", quoted))
    for name in reversed(NEW_FUNCTIONS):
        op.execute(f"DROP FUNCTION {quoted}.{name}")
    op.drop_index("lease_address_idx", "lease", schema=schema)
    op.drop_column("subscription", "takes_turns", schema=schema)
    op.drop_column("message", "attempts", schema=schema)


def _definition(revision: str, name: str) -> str:
    return (Path(__file__).parents[1] / "sql" / revision / f"{name}.sql").read_text()
