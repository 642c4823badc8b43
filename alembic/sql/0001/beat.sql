-- The heartbeat of a node, on the connection on which it listens. It renews the node's lease when a part of that has
-- passed, or registers the node; removes the nodes whose lease has ended; makes the log keep messages for as long as
-- this node needs, which a failover can undo; and sends the node a notification that it must hear: see probe(), which
-- returns `is_told`. The notification arrives after those of all messages committed before: by then, all ids up to
-- `filled_until` have arrived.
-- Leases outlast a crash of the server, and sessions that are lost: a flush waits for nodes that are not back yet.
-- `has_undelivered` says whether a transaction has left messages for deliver_undelivered().
-- Returns the version of what the node hosts, 0 if it was just registered or hosts nothing, and the extent of the log.
CREATE FUNCTION {schema}.beat(
    beating_node uuid, node_name text, lease interval, needed interval, token text,
    host text DEFAULT '', process_id integer DEFAULT 0, process text DEFAULT '', node_address text DEFAULT '',
    OUT version bigint, OUT is_told boolean, OUT has_undelivered boolean,
    OUT identity bigint, OUT identity_from bigint, OUT former bigint[],
    OUT began_at bigint, OUT filled_until bigint, OUT gone_until bigint, OUT last_id bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    moment timestamptz := clock_timestamp();  -- no index serves a function whose value changes
    longest timestamptz;
    ended uuid[];
    is_renewed boolean;
BEGIN
    -- First: it may remove all nodes.
    SELECT e.* INTO identity, identity_from, former, began_at, filled_until, gone_until, last_id FROM {schema}.extent() AS e;
    UPDATE {schema}.node
    SET leased_until = clock_timestamp() + lease, pid = pg_backend_pid(),
        session_began_at = CASE WHEN pid = pg_backend_pid() THEN session_began_at
                                ELSE (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())) END
    WHERE id = beating_node
      AND (leased_until NOT BETWEEN clock_timestamp() + lease * 0.7 AND clock_timestamp() + lease OR pid <> pg_backend_pid());
    is_renewed := FOUND;
    -- A lease longer than that means that the clock was set back.
    longest := (SELECT moment + greatest(retention * 2, '30 s') FROM {schema}.log);
    UPDATE {schema}.node SET leased_until = longest
    WHERE id = ANY (ARRAY(SELECT id FROM {schema}.node WHERE leased_until > longest FOR UPDATE SKIP LOCKED));
    UPDATE {schema}.lease SET leased_until = longest
    WHERE node = ANY (ARRAY(SELECT l.node FROM {schema}.lease AS l WHERE l.leased_until > longest FOR UPDATE SKIP LOCKED));
    DELETE FROM {schema}.lease
    WHERE node = ANY (ARRAY(SELECT l.node FROM {schema}.lease AS l WHERE l.leased_until < moment FOR UPDATE SKIP LOCKED));
    SELECT array_agg(id) INTO ended
    FROM (SELECT id FROM {schema}.node WHERE leased_until < moment FOR UPDATE SKIP LOCKED) AS locked;
    IF ended IS NOT NULL THEN
        PERFORM {schema}.remove_nodes(ended);
    END IF;
    SELECT n.version INTO version FROM {schema}.node AS n WHERE n.id = beating_node;
    IF NOT FOUND THEN
        version := 0;
        INSERT INTO {schema}.node (id, name, host, process_id, process, leased_until, pid, session_began_at)
        VALUES (beating_node, node_name, host, process_id, process, clock_timestamp() + lease, pg_backend_pid(),
                (SELECT backend_start FROM pg_stat_get_activity(pg_backend_pid())))
        ON CONFLICT (id) DO NOTHING;
        is_renewed := true;
    END IF;
    IF is_renewed THEN
        INSERT INTO {schema}.lease AS l (node, address, leased_until) VALUES (beating_node, node_address, clock_timestamp() + lease)
        ON CONFLICT (node) DO UPDATE SET leased_until = EXCLUDED.leased_until;
    END IF;
    IF NOT EXISTS (SELECT FROM {schema}.subscription WHERE node = beating_node) THEN
        version := 0;  -- its own address is always there: somebody has emptied the table
    END IF;
    has_undelivered := EXISTS (SELECT FROM {schema}.undelivered);
    PERFORM {schema}.keep_messages_for(extract(epoch FROM needed));
    is_told := {schema}.probe(beating_node, token);
END
$$
