-- Sends a node a notification that it must hear, and returns true; returns false if PostgreSQL's queue has no room.
-- The queue drops what all sessions have read only when somebody checks its size, or notifies; a full one refuses that.
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
