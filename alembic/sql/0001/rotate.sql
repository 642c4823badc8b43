-- Makes the oldest slot the current one, emptied, when the current one has been filled for half of the retention.
-- Each message is kept for the retention at least, and for one and a half times that at most.
-- Returns whether it rotated. Raises lock_not_available when somebody reads the oldest slot: try again soon.
CREATE FUNCTION {schema}.rotate() RETURNS boolean
LANGUAGE plpgsql
SET lock_timeout = '50ms'
AS $$
DECLARE
    next_slot smallint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('{schema}'), 65) THEN
        RETURN false;
    END IF;
    SELECT (slot + 1) % 3 INTO next_slot FROM {schema}.log_state, {schema}.log
    WHERE rotated_at + retention / 2 <= clock_timestamp();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('TRUNCATE {schema}.message_%s', next_slot);
    UPDATE {schema}.log_state SET slot = next_slot, rotated_at = clock_timestamp();
    RETURN true;
END
$$
