-- The slot that takes new rows, and goes on doing so until the end of this transaction.
-- To be called after all reading from the log: rotate() holds the locks of old slots while it waits for this one.
CREATE FUNCTION {schema}.current_slot() RETURNS smallint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('{schema}'), 64);
    IF NOT EXISTS (SELECT FROM {schema}.log_state) THEN
        PERFORM {schema}.start_epoch();
    END IF;
    RETURN (SELECT slot FROM {schema}.log_state);
END
$$
