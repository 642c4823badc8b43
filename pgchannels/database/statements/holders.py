"""Who holds locks that a change of the tables needs."""

from pgchannels.database.revision import UPGRADING, upgrading_key
from pgchannels.names import require_valid_schema


def holders_query(schema: str, *, most: int = 3) -> str:
    """Return a query for sessions with locks on the schema's tables, or with that of upgrades: those come first.

    Columns are process ID, application, role, since when, and whether it is the lock of upgrades. Any role sees them,
    except since when: that is NULL for sessions of others. A prepared transaction has no process ID.
    """
    name = require_valid_schema(schema)
    return f"""
        SELECT l.pid, a.application_name, a.usename, a.xact_start AT TIME ZONE 'UTC',
               pg_catalog.bool_or(l.locktype OPERATOR(pg_catalog.=) 'advisory') AS is_of_upgrade
        FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid OPERATOR(pg_catalog.=) l.pid
        WHERE l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
          AND l.database OPERATOR(pg_catalog.=) (
              SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
          )
          AND (l.relation OPERATOR(pg_catalog.=) ANY (ARRAY(
                  SELECT c.oid FROM pg_catalog.pg_class AS c
                  JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                  WHERE n.nspname OPERATOR(pg_catalog.=) '{name}'
              ))
              OR l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.objsubid OPERATOR(pg_catalog.=) 2
                 AND l.objid OPERATOR(pg_catalog.=) {UPGRADING}
                 AND l.classid::pg_catalog.int8 OPERATOR(pg_catalog.=)
                     ({upgrading_key(schema)}::pg_catalog.int8 OPERATOR(pg_catalog.&) 4294967295))
        GROUP BY 1, 2, 3, 4
        ORDER BY is_of_upgrade DESC, 4 NULLS LAST, 1 LIMIT {most}
    """  # noqa: S608
