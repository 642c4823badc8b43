-- Takes the next step that is due, and returns whether there was one; if so, call it again. It empties the slots that
-- were filled longer ago than the retention. When the current slot has been filling for half of that, it makes an empty
-- one current: so each message is kept for at least the retention, and at most one and a half times that. If somebody's
-- lock keeps a slot from being emptied (pg_dump locks every table), another slot takes its place; so slots may be
-- emptied in any order. Messages to topics that are kept for longer move to kept slots. Also removes the memberships that have expired.
-- Empty slots are made logged or unlogged, as was chosen. If the current slot is not, another one takes its place at once.
-- One step per call: readers of a slot that is being emptied wait, and the next step waits for all readers and writers.
-- Raises lock_not_available if it had to wait for somebody: retry soon.
CREATE OR REPLACE FUNCTION {schema}.rotate() RETURNS boolean
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
    is_of_other_kind boolean;
    is_unused boolean := false;
    next_slot smallint;
    finished_until constant bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
BEGIN
    PERFORM FROM {schema}.log_state FOR UPDATE SKIP LOCKED;  -- who holds it rotates
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    -- If the clock was set back, nothing would be due for that long.
    UPDATE {schema}.log_state SET rotated_at = clock_timestamp() WHERE rotated_at > clock_timestamp();
    UPDATE {schema}.filled_slot SET filled_at = clock_timestamp() WHERE filled_at > clock_timestamp();
    UPDATE {schema}.log_state SET gone_at = clock_timestamp() WHERE gone_at > clock_timestamp();

    -- Layers say what they need with each heartbeat, or each hour. What nobody has needed for a term is not kept.
    UPDATE {schema}.log SET
        retention = greatest(chosen, needed), needed_before = needed, needed = '0', term_began_at = clock_timestamp()
    WHERE clock_timestamp() NOT BETWEEN term_began_at AND term_began_at + greatest(retention * 2, '1 day')
      AND needed > '0';  -- else no layer was there, and what is kept is kept for the next

    -- What a finished transaction has left in the outbox without a word, as one can that changes our setting.
    INSERT INTO {schema}.undelivered (transaction)
    SELECT DISTINCT o.transaction FROM {schema}.outbox AS o, {schema}.log_state AS s
    WHERE o.transaction >= s.swept_until AND o.transaction < finished_until ON CONFLICT (transaction) DO NOTHING;
    UPDATE {schema}.log_state SET swept_until = finished_until;

    UPDATE {schema}.kept_slot SET filled_at = clock_timestamp()
    WHERE filled_at IS NULL AND {schema}.is_logged(slot) <> EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable');
    is_emptied := {schema}.empty_kept_slots();
    FOR filled IN
        SELECT f.slot, f.filled_at, f.last_id FROM {schema}.filled_slot AS f, {schema}.log
        WHERE f.filled_at + retention <= clock_timestamp() ORDER BY f.filled_at
    LOOP
        IF NOT {schema}.can_be_emptied(filled.slot) THEN
            is_locked := true;
            CONTINUE;
        END IF;
        BEGIN
            PERFORM {schema}.carry_queues(filled.slot);
            PERFORM {schema}.keep_topics(filled.slot);
            PERFORM {schema}.note_gone(filled.slot, filled.last_id);
            EXECUTE format('TRUNCATE {schema}.message_%s', filled.slot);
            DELETE FROM {schema}.filled_slot WHERE slot = filled.slot;
            UPDATE {schema}.log_state SET
                gone_until = greatest(gone_until, filled.last_id),
                gone_at = CASE WHEN filled.last_id > gone_until THEN filled.filled_at ELSE gone_at END;
            is_emptied := true;
        EXCEPTION WHEN lock_not_available THEN
            is_locked := true;
        END;
    END LOOP;
    FOR next_slot IN SELECT {schema}.unused_slots() LOOP
        BEGIN
            is_emptied := {schema}.turn_slot(next_slot) OR is_emptied;
        EXCEPTION WHEN lock_not_available THEN
            is_locked := true;
        END;
    END LOOP;
    IF is_emptied THEN
        PERFORM {schema}.save_state();
        RETURN true;
    END IF;
    SELECT {schema}.is_logged(slot) <> EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable') INTO is_of_other_kind
    FROM {schema}.log_state;
    IF NOT is_of_other_kind AND NOT EXISTS (SELECT FROM {schema}.log_state, {schema}.log WHERE rotated_at + retention / 2 <= clock_timestamp()) THEN
        RETURN false;
    END IF;

    DELETE FROM {schema}.member WHERE expires_at <= clock_timestamp();
    next_slot := {schema}.empty_slot(is_locked OR is_of_other_kind);
    IF next_slot IS NULL THEN
        RETURN false;
    END IF;
    -- Waits for the batches under way: they and their ids belong to the slot that was current until now.
    PERFORM FROM {schema}.stripe ORDER BY number FOR UPDATE;
    IF is_of_other_kind THEN
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM {schema}.message_%s)', (SELECT slot FROM {schema}.log_state)) INTO is_unused;
    END IF;
    INSERT INTO {schema}.filled_slot (slot, filled_at, last_id)
    SELECT s.slot, clock_timestamp(), i.last_value + 511 FROM {schema}.log_state AS s, {schema}.message_id AS i WHERE NOT is_unused;
    UPDATE {schema}.log_state SET slot = next_slot, rotated_at = clock_timestamp(), filled_until = (SELECT last_value + 511 FROM {schema}.message_id);
    PERFORM {schema}.save_state();
    RETURN true;
END
$$
