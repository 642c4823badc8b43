-- Makes this session listen for a node. It is a function so that the node's id, which is a secret, is a parameter:
-- roles that may read pg_stat_activity see the text of every statement, and that of a LISTEN contains the name.
-- The lock says whose session it is, see end_listening(). Nobody waits for it: a role that took it first only keeps the
-- session from being ended.
CREATE OR REPLACE FUNCTION {schema}.listen(listening_node uuid) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('LISTEN %I', listening_node);
    PERFORM pg_try_advisory_lock_shared(hashtextextended(listening_node::text, 0));
END
$$
