-- Takes the next step that is due, and returns whether there was one: call it again then. It empties the slots that were
-- filled longer ago than the retention; when the current one has been filled for half of that, it makes an empty one
-- current: each message is kept for the retention at least, and for one and a half times that at most. Where somebody's
-- lock keeps a slot from being emptied (pg_dump takes one on every table) there is another slot in its place; so slots
-- may be emptied in any order. Also removes the memberships that have expired.
-- One step a call: who reads a slot that is being emptied waits, and the next step waits for all who read or write.
-- Raises lock_not_available when it had to wait for somebody: try again soon.
CREATE FUNCTION {schema}.rotate() RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER  -- only the owner of tables may make or truncate them
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
SET timezone = 'UTC'  -- a day has 24 hours
AS $$
DECLARE
    filled record;
    is_emptied boolean := false;
    is_locked boolean := false;
    next_slot smallint;
BEGIN
    PERFORM FROM {schema}.log_state FOR UPDATE SKIP LOCKED;  -- who holds it rotates
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    -- Where the clock was set back nothing would be due for as long.
    UPDATE {schema}.log_state SET rotated_at = clock_timestamp() WHERE rotated_at > clock_timestamp();
    UPDATE {schema}.filled_slot SET filled_at = clock_timestamp() WHERE filled_at > clock_timestamp();

    FOR filled IN
        SELECT f.slot, f.last_id FROM {schema}.filled_slot AS f, {schema}.log
        WHERE f.filled_at + retention <= clock_timestamp() ORDER BY f.filled_at
    LOOP
        BEGIN
            PERFORM {schema}.carry_queues(filled.slot);
            EXECUTE format('TRUNCATE {schema}.message_%s', filled.slot);
            DELETE FROM {schema}.filled_slot WHERE slot = filled.slot;
            UPDATE {schema}.log_state SET gone_until = greatest(gone_until, filled.last_id);
            is_emptied := true;
        EXCEPTION WHEN lock_not_available THEN
            is_locked := true;
        END;
    END LOOP;
    IF is_emptied OR NOT EXISTS (SELECT FROM {schema}.log_state, {schema}.log WHERE rotated_at + retention / 2 <= clock_timestamp()) THEN
        RETURN is_emptied;
    END IF;

    DELETE FROM {schema}.member WHERE expires_at <= clock_timestamp();
    next_slot := {schema}.empty_slot(is_locked);
    IF next_slot IS NULL THEN
        RETURN false;
    END IF;
    -- Waits for the batches under way: they are in the slot that is current until now, and so are their ids.
    PERFORM FROM {schema}.stripe ORDER BY number FOR UPDATE;
    INSERT INTO {schema}.filled_slot (slot, filled_at, last_id)
    SELECT s.slot, clock_timestamp(), i.last_value + 511 FROM {schema}.log_state AS s, {schema}.message_id AS i;
    UPDATE {schema}.log_state SET slot = next_slot, rotated_at = clock_timestamp(), filled_until = (SELECT last_value + 511 FROM {schema}.message_id);
    RETURN true;
END
$$
