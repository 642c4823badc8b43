-- Ends the sessions in which a node listens, if this role may: what a stopped process has not read would stay in
-- PostgreSQL's notification queue, and fill it. They are known by the lock that listen() takes: a pooler that has given
-- the session to somebody else has released it.
CREATE FUNCTION {schema}.end_listening(ended_node uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_terminate_backend(l.pid) FROM pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
      AND ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended(ended_node::text, 0) AND l.objsubid = 1
      AND l.granted AND l.pid <> pg_backend_pid();
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END
$$
