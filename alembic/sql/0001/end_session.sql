-- Ends the session in which a node listened, if this role may: what a stopped process has not read would stay in
-- PostgreSQL's notification queue, and fill it. Process IDs are reused: a session is the same only if it began at the
-- same time.
CREATE FUNCTION {schema}.end_session(ended_pid integer, began_at timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_terminate_backend(a.pid) FROM pg_stat_get_activity(ended_pid) AS a
    WHERE a.backend_start = began_at AND a.pid <> pg_backend_pid();
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$$
