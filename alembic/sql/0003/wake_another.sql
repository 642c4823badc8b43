-- Wakes another node that waits for a message to a queue: the one that was woken does not wait any more.
CREATE FUNCTION {schema}.wake_another(queue text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    log record;
BEGIN
    log := {schema}.lock_addresses(ARRAY[queue]);
    PERFORM {schema}.wake(queue, 1, log.slot);
END
$$
