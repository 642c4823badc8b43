-- The slot that takes new rows, and goes on doing so until the end of this transaction.
-- To be called after all reading from the log: rotate() holds the locks of old slots while it waits for this one.
CREATE FUNCTION {schema}.current_slot() RETURNS smallint
LANGUAGE plpgsql AS $$
DECLARE
    is_locked boolean;
    slot_now smallint;
BEGIN
    is_locked := pg_advisory_xact_lock_shared(hashtext('{schema}'), 64) IS NULL;
    SELECT slot INTO slot_now FROM {schema}.log_state AS s  -- a statement behind the lock
    WHERE s.server_started_at = pg_postmaster_start_time() AND s.file = pg_relation_filepath(s.tableoid);
    IF NOT FOUND THEN
        PERFORM {schema}.start_epoch();
        SELECT slot INTO slot_now FROM {schema}.log_state;
    END IF;
    RETURN slot_now;
END
$$
