-- The heartbeat of a node: renews its lease when a part of it has passed, sends it a notification that it must hear,
-- and removes the nodes whose lease has ended. Returns how many addresses it hosts; NULL when it was itself removed.
CREATE FUNCTION {schema}.beat(beating_node uuid, lease interval, token text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();  -- no index serves a function whose value changes
    ended uuid[];
BEGIN
    UPDATE {schema}.node SET leased_until = clock_timestamp() + lease
    WHERE id = beating_node AND leased_until < clock_timestamp() + lease * 0.7;
    SELECT array_agg(id) INTO ended
    FROM (SELECT id FROM {schema}.node WHERE leased_until < moment FOR UPDATE SKIP LOCKED) AS locked;
    IF ended IS NOT NULL THEN
        PERFORM {schema}.remove_nodes(ended);
    END IF;
    PERFORM pg_notify(beating_node::text, 'p ' || token);
    IF EXISTS (SELECT FROM {schema}.node WHERE id = beating_node) THEN
        RETURN (SELECT count(*) FROM {schema}.subscription WHERE node = beating_node);
    END IF;
    RETURN NULL;
END
$$
