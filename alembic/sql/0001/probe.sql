-- Sends a node a notification that it must hear, and returns true; where PostgreSQL's queue has no room for it, returns false.
-- The queue forgets what all sessions have read only when somebody looks at its size, or notifies, which a full one refuses.
CREATE FUNCTION {schema}.probe(probed_node uuid, token text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_notification_queue_usage() > 0.98 THEN
        RETURN false;
    END IF;
    PERFORM pg_notify(probed_node::text, 'p ' || token);
    RETURN true;
END
$$
